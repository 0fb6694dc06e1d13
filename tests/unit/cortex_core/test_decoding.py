import msgspec
import pytest

from cortex_core.decoding import UNDECODABLE

DEPTH = 100_000


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b'"\xff"'])
def test_json_that_is_not_what_was_asked_for(data):
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(data, type=str)


@pytest.mark.parametrize("data", [b"", b"\xa2x", b"\x91\x01", b"\xc1", b"\xa1\xff"])
def test_msgpack_that_is_not_what_was_asked_for(data):
    with pytest.raises(UNDECODABLE):
        msgspec.msgpack.decode(data, type=str)


@pytest.mark.parametrize("data", [b"[" * DEPTH, b"[" * DEPTH + b"]" * DEPTH, b'{"a":' * DEPTH])
@pytest.mark.parametrize("kind", [object, msgspec.Raw])
def test_json_that_is_nested_too_deeply(data, kind):
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(data, type=kind)


@pytest.mark.parametrize("data", [b"\x91" * DEPTH, b"\x91" * DEPTH + b"\x01", b"\x81\x01" * DEPTH])
def test_msgpack_that_is_nested_too_deeply(data):
    with pytest.raises(UNDECODABLE):
        msgspec.msgpack.decode(data)
