"""Writes a decoder's plan down in packed weights: to a file that actors read, or to memory.

First everything gets its place, then pieces of matrices are turned into float32 and packed, by a
few threads and a few MiB at a time, however large a layer is.
"""

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from cortex_core.errors import OutOfMemory
from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.memory import Buffer, address_of
from neurond.kernels.packed_file import (
    ALIGNMENT,
    LAYER_AND_HEAD,
    VERSION,
    PackedDecoder,
    PackedLayer,
    PackedLinear,
    PackedRope,
    WeightFormat,
    digest_of,
    header_of,
    packing_of,
    plan_source,
)
from neurond.kernels.packed_model import PackedModel
from neurond.models.decoder_plan import DecoderPlan, PlanLayer, PlanLinear, PlanRope
from neurond.models.file_matrix import read_rows
from neurond.models.partial_file import partial_file, remove_except

PIECE_VALUES: Final = 1 << 18
"""Weights that are read and packed at once: 1 MiB in float32, which stays in a core's cache."""
THREADS: Final = 2

Report = Callable[[float], None]


def pack_to_file(
    plan: DecoderPlan,
    path: Path,
    weights_hash: str,
    weight_format: WeightFormat,
    kernels: Kernels,
    on_progress: Report,
) -> None:
    """Pack into a file at `path`, see `packed_path`. It appears there when it is whole.

    Args:
        on_progress: told the fraction done, 0 to 1, from this thread.

    Raises:
        ModelLoadFailed: the file cannot be written; the caller may still `pack_to_memory`.
    """
    layout = _Layout(plan, weights_hash, weight_format, kernels)
    with partial_file(path, layout.size_bytes) as descriptor:
        mapped = mmap.mmap(descriptor, layout.size_bytes, mmap.MAP_SHARED)
        layout.fill(np.frombuffer(mapped, np.uint8), on_progress)
        mapped.flush()
    remove_except(path.parent, f"{weights_hash}-", f"-v{VERSION}.bin")


def pack_to_memory(
    plan: DecoderPlan,
    weights_hash: str,
    weight_format: WeightFormat,
    kernels: Kernels,
    on_progress: Report,
) -> PackedModel:
    """Pack into memory of this process.

    Raises:
        OutOfMemory: there is not so much.
    """
    layout = _Layout(plan, weights_hash, weight_format, kernels)
    try:
        buffer = Buffer(layout.size_bytes)
    except OSError as ex:
        raise OutOfMemory(
            f"cannot pack weights into {layout.size_bytes} bytes of memory: {ex.strerror}; choose "
            "a smaller weight format"
        ) from ex
    layout.fill(buffer.bytes, on_progress)
    return PackedModel(buffer.bytes, None)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One thing to be written: `write` gets all arrays' bytes."""

    values: int
    write: Callable[[NDArray[np.uint8]], None]


@dataclass(slots=True)
class _Places:
    """Gives out room in the file, and notes what goes there."""

    kernels: Kernels
    end: int = 0
    pieces: list[_Piece] = field(default_factory=list)

    def room(self, size_bytes: int) -> int:
        offset = self.end
        self.end = -(-(offset + size_bytes) // ALIGNMENT) * ALIGNMENT
        return offset

    def floats(self, tensor: torch.Tensor) -> int:
        """Place a small tensor as float32."""
        offset = self.room(4 * tensor.numel())
        self.pieces.append(_Piece(tensor.numel(), partial(_copy, tensor, torch.float32, offset)))
        return offset

    def optional(self, tensor: torch.Tensor | None) -> int | None:
        return None if tensor is None else self.floats(tensor)

    def embedding(self, tensor: torch.Tensor) -> int:
        """Place [vocab_size, hidden] as bfloat16."""
        hidden = tensor.shape[1]
        offset = self.room(2 * tensor.numel())
        for first, stop in _spans(len(tensor), hidden):
            place = offset + 2 * first * hidden
            write = partial(_copy_rows, tensor, first, stop, torch.bfloat16, place)
            self.pieces.append(_Piece((stop - first) * hidden, write))
        return offset

    def linear(self, linear: PlanLinear, weight_format: WeightFormat) -> PackedLinear:
        """Place a matrix in the kernels' own layout."""
        shape = (linear.out_features, linear.in_features)
        data = self.room(self.kernels.packed_bytes(weight_format, *shape))
        packed = PackedLinear(weight_format, *shape, data, self.optional(linear.bias()))
        for first, stop in _spans(*shape):
            write = partial(_pack, self.kernels, linear, packed, first, stop)
            self.pieces.append(_Piece((stop - first) * linear.in_features, write))
        return packed

    def rope(self, rope: PlanRope) -> PackedRope:
        """Place rotary tables."""
        half = rope.rotary_dim // 2
        cos, sin = (self.room(4 * rope.num_positions * half) for _ in range(2))
        for first, stop in _spans(rope.num_positions, half):
            places = (cos + 4 * first * half, sin + 4 * first * half)
            write = partial(_compute_rope, rope, first, stop, places)
            self.pieces.append(_Piece((stop - first) * half, write))
        return PackedRope(rope.num_positions, rope.rotary_dim, cos, sin)


class _Layout:
    """A whole file: its description, and the pieces it is filled with."""

    def __init__(
        self, plan: DecoderPlan, weights_hash: str, weight_format: WeightFormat, kernels: Kernels
    ) -> None:
        of_layers, of_head = LAYER_AND_HEAD[weight_format]
        places = _Places(kernels)
        decoder = PackedDecoder(
            weights_hash=weights_hash,
            weight_format=weight_format,
            variant=kernels.layout,
            packing=packing_of(kernels, weight_format),
            plan_source=plan_source(),
            vocab_size=plan.vocab_size,
            hidden=plan.hidden,
            norm_eps=plan.norm_eps,
            embedding_scale=plan.embedding_scale,
            final_softcap=plan.final_softcap,
            two_way_tokens=plan.two_way_tokens,
            embedding=places.embedding(plan.embedding),
            ropes=tuple(places.rope(rope) for rope in plan.ropes),
            layers=tuple(_place_layer(places, layer, of_layers) for layer in plan.layers),
            final_norm=places.floats(plan.final_norm),
            head=places.linear(plan.head, of_head),
        )
        self._decoder = decoder
        self._data_bytes = places.end
        self._pieces = places.pieces
        self._start = len(header_of(decoder, places.end, 0))
        self.size_bytes = self._start + places.end

    def fill(self, blob: NDArray[np.uint8], on_progress: Report) -> None:
        """Write everything into `blob`, which is zero and as large as `size_bytes`."""
        data = blob[self._start :]
        total = sum(piece.values for piece in self._pieces)
        done = 0
        with ThreadPoolExecutor(THREADS, thread_name_prefix="pack") as threads:
            written = threads.map(lambda piece: piece.write(data), self._pieces)
            for piece, _ in zip(self._pieces, written, strict=True):
                done += piece.values
                on_progress(done / total)
        header = header_of(self._decoder, self._data_bytes, digest_of(data.data))
        blob[: self._start] = np.frombuffer(header, np.uint8)


def _place_layer(places: _Places, layer: PlanLayer, weight_format: WeightFormat) -> PackedLayer:
    def place(linear: PlanLinear) -> PackedLinear:
        wide = weight_format == "int4" and linear.is_wide
        return places.linear(linear, "int8" if wide else weight_format)

    return PackedLayer(
        input_norm=places.floats(layer.input_norm),
        qkv=place(layer.qkv),
        q_norm=places.optional(layer.q_norm),
        k_norm=places.optional(layer.k_norm),
        sinks=places.optional(layer.sinks),
        o=place(layer.o),
        post_attention_norm=places.optional(layer.post_attention_norm),
        pre_ffn_norm=places.floats(layer.pre_ffn_norm),
        gate_up=place(layer.gate_up),
        down=place(layer.down),
        post_ffn_norm=places.optional(layer.post_ffn_norm),
        num_heads=layer.num_heads,
        num_kv_heads=layer.num_kv_heads,
        head_dim=layer.head_dim,
        rope=layer.rope,
        window=layer.window,
        activation=layer.activation,
        scale=layer.scale,
        softcap=layer.softcap,
    )


def _spans(num_rows: int, width: int) -> list[tuple[int, int]]:
    """Cut rows into pieces of a multiple of a panel's rows."""
    step = max(PIECE_VALUES // width // abi.PANEL, 1) * abi.PANEL
    return [(first, min(first + step, num_rows)) for first in range(0, num_rows, step)]


def _copy(tensor: torch.Tensor, dtype: torch.dtype, offset: int, data: NDArray[np.uint8]) -> None:
    whole = tensor.detach().to(dtype).contiguous()
    room = torch.from_numpy(data[offset : offset + whole.nbytes])
    room.view(dtype).copy_(whole.view(-1))


def _copy_rows(
    matrix: torch.Tensor,
    first: int,
    stop: int,
    dtype: torch.dtype,
    offset: int,
    data: NDArray[np.uint8],
) -> None:
    _copy(read_rows(matrix, first, stop), dtype, offset, data)


def _compute_rope(
    rope: PlanRope, first: int, stop: int, places: tuple[int, int], data: NDArray[np.uint8]
) -> None:
    for table, place in zip(rope.compute(torch.arange(first, stop)), places, strict=True):
        _copy(table, torch.float32, place, data)


def _pack(
    kernels: Kernels,
    linear: PlanLinear,
    packed: PackedLinear,
    first: int,
    stop: int,
    data: NDArray[np.uint8],
) -> None:
    place = abi.Linear(
        format=abi.FORMATS[packed.weight_format],
        out_features=packed.out_features,
        in_features=packed.in_features,
        data=address_of(data) + packed.data,
    )
    kernels.pack_rows(place, first, linear.rows(first, stop).numpy())
