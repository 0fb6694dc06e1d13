"""A decoder in packed weights, ready for the kernels.

Opening needs neither torch nor the model's own files: the file says all that a step needs. It is
mapped, and copied into huge pages while the device is idle, see `neurond.kernels.file_memory`:
single streams wait for weights, and read those a seventh to a quarter faster.
"""

import errno
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cortex_core.errors import OutOfMemory
from cortex_core.logs import kv
from neurond.kernels import abi
from neurond.kernels.file_memory import FileMemory
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import (
    Damaged,
    PackedDecoder,
    PackedLayer,
    PackedLinear,
    PackedRope,
    WeightFormat,
    packing_of,
    plan_source,
    read_header,
)

log = logging.getLogger(__name__)


class PackedModel:
    """Owns the memory that `struct` points into; dropping the last reference frees it."""

    def __init__(
        self, blob: NDArray[np.uint8], path: Path | None, file: FileMemory | None = None
    ) -> None:
        """Take over a whole file's bytes, aligned to 64; `file` is what they lie in, if any.

        Raises:
            Damaged: they are not to be trusted.
        """
        self.decoder, data_start = read_header(blob.data)
        self.path = path
        self.size_bytes = len(blob)
        self._blob = blob
        self._file = file
        self.struct = struct_of(self.decoder, int(blob.ctypes.data) + data_start)

    @property
    def context_tokens(self) -> int:
        """Longest sequence that there are rotary tables for."""
        return min(rope.num_positions for rope in self.decoder.ropes)

    def own_piece(self) -> bool:
        """See `FileMemory.own_piece`; there is none where weights are no file's."""
        return self._file is not None and self._file.own_piece()


def struct_of(decoder: PackedDecoder, data_address: int = 0) -> abi.Model:
    """Return the kernels' view of a decoder whose arrays begin at an address, and live longer.

    Without one it has sizes alone, for what asks how much memory they take.
    """

    def at(offset: int | None) -> int | None:
        return None if offset is None else data_address + offset

    def linear(packed: PackedLinear) -> abi.Linear:
        return abi.Linear(
            format=abi.FORMATS[packed.weight_format],
            out_features=packed.out_features,
            in_features=packed.in_features,
            data=at(packed.data),
            bias=at(packed.bias),
        )

    def rope(packed: PackedRope) -> abi.Rope:
        return abi.Rope(
            num_positions=packed.num_positions,
            rotary_dim=packed.rotary_dim,
            cos=at(packed.cos),
            sin=at(packed.sin),
        )

    def layer(packed: PackedLayer) -> abi.Layer:
        return abi.Layer(
            input_norm=at(packed.input_norm),
            qkv=linear(packed.qkv),
            q_norm=at(packed.q_norm),
            k_norm=at(packed.k_norm),
            sinks=at(packed.sinks),
            o=linear(packed.o),
            post_attention_norm=at(packed.post_attention_norm),
            pre_ffn_norm=at(packed.pre_ffn_norm),
            gate_up=linear(packed.gate_up),
            down=linear(packed.down),
            post_ffn_norm=at(packed.post_ffn_norm),
            num_heads=packed.num_heads,
            num_kv_heads=packed.num_kv_heads,
            head_dim=packed.head_dim,
            rope=-1 if packed.rope is None else packed.rope,
            window=packed.window or 0,
            activation=abi.ACTIVATIONS[packed.activation],
            scale=packed.scale,
            softcap=packed.softcap or 0.0,
        )

    # The struct keeps the arrays that its pointers are made from.
    return abi.Model(
        vocab_size=decoder.vocab_size,
        hidden=decoder.hidden,
        num_layers=len(decoder.layers),
        num_ropes=len(decoder.ropes),
        norm_eps=decoder.norm_eps,
        embedding_scale=decoder.embedding_scale,
        final_softcap=decoder.final_softcap or 0.0,
        embedding=at(decoder.embedding),
        final_norm=at(decoder.final_norm),
        head=linear(decoder.head),
        layers=(abi.Layer * len(decoder.layers))(*map(layer, decoder.layers)),
        ropes=(abi.Rope * len(decoder.ropes))(*map(rope, decoder.ropes)),
    )


def open_packed(
    path: Path, kernels: Kernels, weights_hash: str, weight_format: WeightFormat
) -> PackedModel | None:
    """Map the file at `path`; None where there is none, or none to be trusted: make it then.

    Raises:
        OutOfMemory: the host does not give the addresses that its bytes take.
    """
    try:
        file = _mapped(path)
        model = PackedModel(file.bytes, path, file)
        _check(model.decoder, kernels, weights_hash, weight_format)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, Damaged) as ex:
        log.warning("packed weights not trusted", extra=kv(path=path, cause=ex))
        return None
    return model


def _mapped(path: Path) -> FileMemory:
    try:
        return FileMemory(path)
    except OSError as ex:
        if ex.errno != errno.ENOMEM:
            raise
        raise OutOfMemory(
            f"cannot map {path} into memory: {ex.strerror}; unload another model"
        ) from ex


def _check(
    decoder: PackedDecoder, kernels: Kernels, weights_hash: str, weight_format: WeightFormat
) -> None:
    """Refuse a file that is whole but of other weights or other kernels."""
    made_for = (decoder.weights_hash, decoder.weight_format, decoder.variant)
    if made_for != (weights_hash, weight_format, kernels.layout):
        raise Damaged(f"it holds {'-'.join(made_for)}")
    if decoder.packing != packing_of(kernels, weight_format):
        raise Damaged("the kernels of this version pack weights in another way")
    if decoder.plan_source != plan_source():
        raise Damaged(f"it was made with {decoder.plan_source}, and {plan_source()} is installed")
