"""The file of packed weights: what stands where, and whether it can be trusted.

    <model folder>/packed/<weights hash>-<format>-<layout>-v<version>.bin
        prefix    magic, version, length of the description, size of the file, digest of the
                  arrays, checksum of these and the description
        description   JSON of `PackedDecoder`; offsets count from the first array
        arrays    each aligned to 64 bytes, in the host's byte order

A file is complete when it has its name: it is written under another one first. The digest is for
what happens to it later. It takes a tenth of a second for each GiB, and brings the file into memory
that the first step reads anyway.
"""

import importlib.metadata
import os
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

import msgspec
import numpy as np
import xxhash

from cortex_core.decoding import UNDECODABLE
from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.memory import Buffer
from neurond.memory_plan import MAX_ROPE_POSITIONS

WeightFormat = Literal["bf16", "int8", "int4"]
LAYER_AND_HEAD: Final[dict[WeightFormat, tuple[WeightFormat, WeightFormat]]] = {
    "bf16": ("bf16", "bf16"),
    "int8": ("int8", "int8"),
    "int4": ("int4", "int8"),
}
"""Formats of the matrices of layers and of the head, by the format that was asked for. Wide
matrices of layers stay int8 in int4, see `decoder_plan.PlanLinear`."""
VERSION: Final = 3
"""Raised when this module's description changes; a change in how kernels pack, or in what plans are
made by, shows by itself."""
PLAN_MODULES: Final = (
    "models/architecture.py",
    "models/attention_hook.py",
    "models/decoder_plan.py",
    "models/gguf_weights.py",
    "models/loader.py",
    "models/pack.py",
    "models/packed_loader.py",
    "models/plan_check.py",
    "models/plan_reader.py",
    "models/plan_reference.py",
    "models/plan_ropes.py",
    "models/vision_check.py",
    "models/weights.py",
    "sources/gguf.py",
    "sources/layer_weights.py",
    "sources/positions.py",
)
"""Sources under the package that turn a model's files into a plan and a plan into a packed file."""
ALIGNMENT: Final = 64
_MAGIC: Final = b"ctxpack\n"
_PREFIX: Final = struct.Struct("<8sIIQQI")
_CHECKED: Final = struct.Struct("<IIQQ")
_PACKAGE: Final = Path(__file__).parents[1]
_DIGEST_PIECE_BYTES: Final = 1 << 24
"""Other threads of the process get their turn after each."""


class PackedLinear(msgspec.Struct, frozen=True, omit_defaults=True):
    """A packed matrix: offsets of its data and of its bias, float32."""

    weight_format: WeightFormat
    out_features: int
    in_features: int
    data: int
    bias: int | None = None


class PackedRope(msgspec.Struct, frozen=True):
    """Rotary tables: offsets of float32 [num_positions, rotary_dim / 2]."""

    num_positions: int
    rotary_dim: int
    cos: int
    sin: int


class PackedLayer(msgspec.Struct, frozen=True, omit_defaults=True):
    """As `decoder_plan.PlanLayer`, with offsets for tensors; all but matrices are float32."""

    input_norm: int
    qkv: PackedLinear
    o: PackedLinear
    pre_ffn_norm: int
    gate_up: PackedLinear
    down: PackedLinear
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: int | None
    activation: str
    scale: float
    q_norm: int | None = None
    k_norm: int | None = None
    sinks: int | None = None
    post_attention_norm: int | None = None
    post_ffn_norm: int | None = None
    window: int | None = None
    softcap: float | None = None


class PackedDecoder(msgspec.Struct, frozen=True, omit_defaults=True):
    """As `decoder_plan.DecoderPlan`, with offsets for tensors, and what they were made from."""

    weights_hash: str
    weight_format: WeightFormat
    variant: str
    """Of the kernels in whose layout the matrices are, see `Kernels.layout`."""
    packing: int
    """See `packing_of`."""
    plan_source: str
    """See `plan_source`."""
    vocab_size: int
    hidden: int
    norm_eps: float
    embedding_scale: float
    embedding: int
    """bfloat16 [vocab_size, hidden]"""
    final_norm: int
    head: PackedLinear
    layers: tuple[PackedLayer, ...]
    ropes: tuple[PackedRope, ...]
    final_softcap: float | None = None
    two_way_tokens: int | None = None
    """See `engine.vision.Vision`; None where the model was packed as one of text."""


class Damaged(Exception):
    """A file of packed weights is not to be trusted; the message says why."""


def packed_path(folder: Path, weights_hash: str, weight_format: WeightFormat, layout: str) -> Path:
    """Return where the packed weights of the model in `folder` lie, or will lie."""
    return folder / "packed" / f"{weights_hash}-{weight_format}-{layout}-v{VERSION}.bin"


def packing_of(kernels: Kernels, weight_format: WeightFormat) -> int:
    """Return the checksum of a small packed matrix: another one where kernels pack otherwise."""
    values = np.arange(2 * abi.PANEL * 2 * abi.GROUP, dtype=np.float32) * 37 % 101 - 50
    rows = values.reshape(2 * abi.PANEL, 2 * abi.GROUP) / np.float32(17)
    checksum = 0
    for used in LAYER_AND_HEAD[weight_format]:
        size_bytes = kernels.packed_bytes(used, *rows.shape)
        buffer = Buffer(size_bytes)
        linear = abi.Linear(abi.FORMATS[used], *rows.shape, 0, buffer.address, None)
        kernels.pack_rows(linear, 0, rows)
        checksum = zlib.crc32(buffer.bytes[:size_bytes].tobytes(), checksum)
    return checksum


@cache
def plan_source() -> str:
    """Return what plans are made by: a decoder that changes there has to be packed again.

    That is the modules which they are read off, and our own that read them and write them down,
    as they lie installed; every installation has them as sources. Read once per process: one that
    goes on after its files were replaced still says what it began with.
    """
    sources = xxhash.xxh3_64()
    for name in PLAN_MODULES:
        sources.update((_PACKAGE / name).read_bytes())
    transformers = importlib.metadata.version("transformers")
    return (
        f"transformers {transformers}, tables of up to {MAX_ROPE_POSITIONS} positions, "
        f"plan sources {sources.hexdigest()}"
    )


def digest_of(data: memoryview) -> int:
    """Return the digest of all arrays, 64 bits."""
    digest = xxhash.xxh3_64()
    for start in range(0, len(data), _DIGEST_PIECE_BYTES):
        digest.update(data[start : start + _DIGEST_PIECE_BYTES])
    return digest.intdigest()


def header_of(decoder: PackedDecoder, data_bytes: int, digest: int) -> bytes:
    """Return what stands before the arrays, which take `data_bytes`.

    Its length does not depend on `digest`, see `digest_of`.
    """
    description = msgspec.json.encode(decoder)
    start = _aligned(_PREFIX.size + len(description))
    fields = (VERSION, len(description), start + data_bytes, digest)
    checksum = zlib.crc32(description, zlib.crc32(_CHECKED.pack(*fields)))
    header = _PREFIX.pack(_MAGIC, *fields, checksum) + description
    return header.ljust(start, b"\0")


def read_header(blob: memoryview) -> tuple[PackedDecoder, int]:
    """Return the description in a whole file, and where its arrays begin; reads all of it.

    Raises:
        Damaged: it is no such file, of another version, or not as it was written.
    """
    prefix = _Prefix.read(blob, len(blob))
    start = _aligned(prefix.end)
    decoder = prefix.decoder(blob[_PREFIX.size : prefix.end])
    if digest_of(blob[start:]) != prefix.digest:
        raise Damaged("its weights do not match their digest")
    return decoder, start


def peek(path: Path) -> PackedDecoder:
    """Return the description in a file whose weights are left unread, and may be damaged.

    Raises:
        OSError: there is no such file, or it cannot be read.
        Damaged: see `read_header`.
    """
    with path.open("rb") as file:
        prefix = _Prefix.read(file.read(_PREFIX.size), os.fstat(file.fileno()).st_size)
        return prefix.decoder(file.read(prefix.length))


class _Prefix(NamedTuple):
    """What a file begins with."""

    length: int
    """Bytes of the description behind it."""
    size_bytes: int
    digest: int
    checksum: int

    @classmethod
    def read(cls, begin: bytes | memoryview, size_bytes: int) -> Self:
        """Take the beginning of a file of so many bytes."""
        if len(begin) < _PREFIX.size:
            raise Damaged(f"it has only {len(begin)} bytes")
        magic, version, *fields = _PREFIX.unpack_from(begin)
        if magic != _MAGIC or version != VERSION:
            raise Damaged(f"it does not begin as packed weights of version {VERSION} do")
        prefix = cls(*fields)
        if prefix.size_bytes != size_bytes:
            raise Damaged(f"it has {size_bytes} bytes instead of {prefix.size_bytes}")
        if prefix.end > size_bytes:
            raise Damaged(f"its description of {prefix.length} bytes is longer than it is")
        return prefix

    @property
    def end(self) -> int:
        """Where the description ends."""
        return _PREFIX.size + self.length

    def decoder(self, description: bytes | memoryview) -> PackedDecoder:
        checked = _CHECKED.pack(VERSION, self.length, self.size_bytes, self.digest)
        if zlib.crc32(description, zlib.crc32(checked)) != self.checksum:
            raise Damaged("its header does not match its checksum")
        try:
            return msgspec.json.decode(description, type=PackedDecoder)
        except UNDECODABLE as ex:
            raise Damaged(f"its description cannot be read: {ex}") from ex


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT
