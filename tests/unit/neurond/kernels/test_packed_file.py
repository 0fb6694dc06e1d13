import ast
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from neurond.kernels import packed_file
from neurond.kernels.packed_file import (
    PLAN_MODULES,
    Damaged,
    PackedDecoder,
    PackedLayer,
    PackedLinear,
    PackedRope,
    digest_of,
    header_of,
    packed_path,
    peek,
    plan_source,
    read_header,
)

DATA = bytes(range(128))


def decoder() -> PackedDecoder:
    linear = PackedLinear("int8", 32, 64, 0, 64)
    layer = PackedLayer(
        input_norm=0,
        qkv=linear,
        o=linear,
        pre_ffn_norm=64,
        gate_up=linear,
        down=linear,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        rope=0,
        activation="silu",
        scale=0.1,
        window=8,
    )
    return PackedDecoder(
        weights_hash="00ff",
        weight_format="int8",
        variant="portable",
        packing=7,
        plan_source="transformers 1.2.3",
        vocab_size=32,
        hidden=64,
        norm_eps=1e-5,
        embedding_scale=25.25,
        embedding=0,
        final_norm=0,
        head=linear,
        layers=(layer, layer),
        ropes=(PackedRope(512, 16, 0, 64),),
    )


def whole() -> bytearray:
    return bytearray(header_of(decoder(), len(DATA), digest_of(memoryview(DATA))) + DATA)


def test_what_was_written_is_read():
    blob = whole()
    found, start = read_header(memoryview(blob))
    assert found == decoder()
    assert start % 64 == 0
    assert blob[start:] == DATA


def test_every_byte_of_the_header_counts():
    length = len(msgspec.json.encode(decoder())) + packed_file._PREFIX.size
    for position in range(length):
        blob = whole()
        blob[position] ^= 1
        with pytest.raises(Damaged):
            read_header(memoryview(blob))


def test_every_byte_of_the_arrays_counts():
    for position in range(1, len(DATA) + 1):
        blob = whole()
        blob[-position] ^= 128
        with pytest.raises(Damaged, match="digest"):
            read_header(memoryview(blob))


@pytest.mark.parametrize("size", [0, 5, 27, 300, -1])
def test_a_short_file_is_refused(size):
    with pytest.raises(Damaged):
        read_header(memoryview(whole()[:size]))


def test_a_long_file_is_refused():
    with pytest.raises(Damaged, match="instead of"):
        read_header(memoryview(whole() + b"\0"))


def test_what_is_packed_can_be_told_without_reading_the_weights(tmp_path):
    path = tmp_path / "packed.bin"
    path.write_bytes(whole()[:-1] + b"?")
    assert peek(path) == decoder()
    path.write_bytes(whole()[:-1])
    with pytest.raises(Damaged, match="bytes instead of"):
        peek(path)
    path.write_bytes(whole().replace(b"00ff", b"00fe"))
    with pytest.raises(Damaged, match="checksum"):
        peek(path)
    with pytest.raises(FileNotFoundError):
        peek(tmp_path / "gone.bin")
    blob = whole()
    length = struct.pack("<I", 1 << 31)
    at = blob.index(struct.pack("<I", len(msgspec.json.encode(decoder()))))
    blob[at : at + len(length)] = length
    path.write_bytes(blob)
    with pytest.raises(Damaged, match="longer than it is"):
        peek(path)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the package, whose sources `plan_source` reads."""
    copy = tmp_path / "neurond"
    sources = shutil.ignore_patterns("__pycache__", "*.so", "csrc")
    shutil.copytree(Path(packed_file.__file__).parents[1], copy, ignore=sources)
    monkeypatch.setattr(packed_file, "_PACKAGE", copy)
    plan_source.cache_clear()
    yield copy
    plan_source.cache_clear()


@pytest.mark.parametrize("name", PLAN_MODULES)
def test_a_plan_is_made_anew_where_its_makers_change(package, name):
    before = plan_source()
    with (package / name).open("a") as source:
        source.write("CHANGED = 1\n")
    assert plan_source() == before
    plan_source.cache_clear()
    assert plan_source() != before


def test_a_plan_outlives_changes_of_what_does_not_make_it(package):
    before = plan_source()
    (package / "models" / "triton_experts.py").write_text("CHANGED = 1\n")
    plan_source.cache_clear()
    assert plan_source() == before


def test_a_plan_is_made_anew_where_rotary_tables_end_elsewhere(package, monkeypatch):
    before = plan_source()
    plan_source.cache_clear()
    monkeypatch.setattr(packed_file, "MAX_ROPE_POSITIONS", 8192)
    assert plan_source() != before


def test_every_module_that_packing_imports_counts(package):
    found: set[str] = set()
    todo = ["models/packed_loader.py"]
    while todo:
        found.add(name := todo.pop())
        for node in ast.walk(ast.parse((package / name).read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith(("neurond.models.", "neurond.sources.")):
                name = f"{module.removeprefix('neurond.').replace('.', '/')}.py"
                todo += {name} - found
    # Files' places on disk and names, and which operator computes experts, which have no plan.
    of_no_weight = {
        "models/partial_file.py",
        "models/experts_choice.py",
        "sources/disk.py",
        "sources/prepared.py",
    }
    assert found - of_no_weight == set(PLAN_MODULES)


def test_names_tell_weights_format_and_variant(tmp_path):
    path = packed_path(tmp_path, "00ff", "int4", "avx2")
    assert path == tmp_path / "packed" / f"00ff-int4-avx2-v{packed_file.VERSION}.bin"
