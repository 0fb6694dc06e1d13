"""How densely the files of a model hold the matrices of its layers."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class StoredTensor(NamedTuple):
    """One tensor as the header of a file tells of it."""

    name: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def is_in_layer(self) -> bool:
        """Whether its name counts layers, as `blk.0.attn_q.weight` and `model.layers.0.…` do."""
        return any(part.isdigit() for part in self.name.split("."))


class LayerWeights(msgspec.Struct, frozen=True):
    """The matrices of all layers: what a weight format is about, and most of a large model.

    Embedding and head are not among them: small quantised models keep those with more bits.
    """

    parameters: int
    size_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file for each weight, scales included; 32 where there is none."""
        return 8 * self.size_bytes / self.parameters if self.parameters else 32.0


def layer_weights(tensors: Iterable[StoredTensor]) -> LayerWeights:
    """Count the matrices of layers among `tensors`."""
    matrices = [tensor for tensor in tensors if tensor.is_in_layer and len(tensor.shape) > 1]
    return LayerWeights(
        parameters=sum(tensor.elements for tensor in matrices),
        size_bytes=sum(tensor.size_bytes for tensor in matrices),
    )
