import msgspec
import pytest

from neurond.kernels import packed_file
from neurond.kernels.packed_file import (
    Damaged,
    PackedDecoder,
    PackedLayer,
    PackedLinear,
    PackedRope,
    digest_of,
    header_of,
    packed_path,
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


def test_a_plan_is_made_anew_where_other_matrices_are_int8(monkeypatch):
    before = plan_source()
    plan_source.cache_clear()
    monkeypatch.setattr(packed_file, "WIDE_BITS", packed_file.WIDE_BITS + 0.5)
    try:
        assert plan_source() != before
    finally:
        plan_source.cache_clear()


def test_names_tell_weights_format_and_variant(tmp_path):
    path = packed_path(tmp_path, "00ff", "int4", "avx2")
    assert path == tmp_path / "packed" / f"00ff-int4-avx2-v{packed_file.VERSION}.bin"
