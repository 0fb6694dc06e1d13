"""A decoder in packed weights, ready for the kernels.

Opening needs neither torch nor the model's own files: the file says all that a step needs. It is
read, not mapped: single streams wait for weights, and huge pages, which a mapped file has not, are
read a tenth faster.
"""

import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cortex_core.errors import OutOfMemory
from cortex_core.logs import kv
from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.memory import Buffer
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

    def __init__(self, blob: NDArray[np.uint8], path: Path | None) -> None:
        """Take over a whole file's bytes, aligned to 64.

        Raises:
            Damaged: they are not to be trusted.
        """
        self.decoder, data_start = read_header(blob.data)
        self.path = path
        self.size_bytes = len(blob)
        self._blob = blob
        self._data = int(blob.ctypes.data) + data_start
        decoder = self.decoder
        self._layers = (abi.Layer * len(decoder.layers))(*map(self._layer, decoder.layers))
        self._ropes = (abi.Rope * len(decoder.ropes))(*map(self._rope, decoder.ropes))
        self.struct = abi.Model(
            vocab_size=decoder.vocab_size,
            hidden=decoder.hidden,
            num_layers=len(decoder.layers),
            num_ropes=len(decoder.ropes),
            norm_eps=decoder.norm_eps,
            embedding_scale=decoder.embedding_scale,
            final_softcap=decoder.final_softcap or 0.0,
            embedding=self._at(decoder.embedding),
            final_norm=self._at(decoder.final_norm),
            head=self._linear(decoder.head),
            layers=self._layers,
            ropes=self._ropes,
        )

    @property
    def context_tokens(self) -> int:
        """Longest sequence that there are rotary tables for."""
        return min(rope.num_positions for rope in self.decoder.ropes)

    def _at(self, offset: int | None) -> int | None:
        return None if offset is None else self._data + offset

    def _linear(self, linear: PackedLinear) -> abi.Linear:
        return abi.Linear(
            format=abi.FORMATS[linear.weight_format],
            out_features=linear.out_features,
            in_features=linear.in_features,
            data=self._at(linear.data),
            bias=self._at(linear.bias),
        )

    def _rope(self, rope: PackedRope) -> abi.Rope:
        return abi.Rope(
            num_positions=rope.num_positions,
            rotary_dim=rope.rotary_dim,
            cos=self._at(rope.cos),
            sin=self._at(rope.sin),
        )

    def _layer(self, layer: PackedLayer) -> abi.Layer:
        return abi.Layer(
            input_norm=self._at(layer.input_norm),
            qkv=self._linear(layer.qkv),
            q_norm=self._at(layer.q_norm),
            k_norm=self._at(layer.k_norm),
            sinks=self._at(layer.sinks),
            o=self._linear(layer.o),
            post_attention_norm=self._at(layer.post_attention_norm),
            pre_ffn_norm=self._at(layer.pre_ffn_norm),
            gate_up=self._linear(layer.gate_up),
            down=self._linear(layer.down),
            post_ffn_norm=self._at(layer.post_ffn_norm),
            num_heads=layer.num_heads,
            num_kv_heads=layer.num_kv_heads,
            head_dim=layer.head_dim,
            rope=layer.rope,
            window=layer.window or 0,
            activation=abi.ACTIVATIONS[layer.activation],
            scale=layer.scale,
            softcap=layer.softcap or 0.0,
        )


def open_packed(
    path: Path, kernels: Kernels, weights_hash: str, weight_format: WeightFormat
) -> PackedModel | None:
    """Read the file at `path`; None where there is none, or none to be trusted: make it then.

    Raises:
        OutOfMemory: the host does not give what its bytes take.
    """
    try:
        model = PackedModel(_read(path), path)
        _check(model.decoder, kernels, weights_hash, weight_format)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, Damaged) as ex:
        log.warning("packed weights not trusted", extra=kv(path=path, cause=ex))
        return None
    return model


def _read(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if not size_bytes:
            raise Damaged("it is empty")
        blob = _memory_for(path, size_bytes)
        if file.readinto(blob.data) != size_bytes:
            raise Damaged("it became shorter while it was read")
    return blob


def _memory_for(path: Path, size_bytes: int) -> NDArray[np.uint8]:
    try:
        return Buffer(size_bytes).bytes
    except OSError as ex:
        raise OutOfMemory(
            f"cannot read {path} into {size_bytes} bytes of memory: {ex.strerror}; unload another "
            "model"
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
