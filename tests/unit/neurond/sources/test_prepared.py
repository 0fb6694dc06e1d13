"""What a prepared model says of itself."""

import msgspec

from cortex_core.model_folder import WeightsFile
from tests.fakes.tokenizers_made import byte_level, prepared


def hash_of(*sha256: str) -> str:
    files = tuple(WeightsFile(f"{number}.w", 1, each) for number, each in enumerate(sha256))
    return msgspec.structs.replace(prepared(byte_level()), weights=files).weights_hash


def test_one_file_names_its_weights() -> None:
    assert hash_of("0123456789abcdef" + 48 * "0") == "0123456789abcdef"


def test_each_of_several_files_names_the_weights() -> None:
    one, two, other = 64 * "1", 64 * "2", 64 * "3"
    hashes = [hash_of(one, two), hash_of(one, other), hash_of(other, two), hash_of(two, one)]
    assert len(set(hashes)) == 4
    assert {len(each) for each in hashes} == {16}
    assert hash_of(one, two) == hashes[0]
