"""How densely the files of a model hold the matrices of its layers."""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

WIDE_BITS: Final = 5.0
"""A matrix whose file has more of a weight is wide: that is what the CPU kernels keep as int4, its
share of scale and minimum included. What a file has in no more (GGUF's Q4_0, Q4_1, Q4_K) loses
nothing that way, or little."""
_STACKS: Final = {
    "attn_q": "attn_qkv",
    "attn_k": "attn_qkv",
    "attn_v": "attn_qkv",
    "ffn_gate": "ffn_gate_up",
    "ffn_up": "ffn_gate_up",
}
"""What the kernels stack into one matrix, by the names that it has in a GGUF."""


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

    @property
    def is_wide(self) -> bool:
        """Whether it is a matrix for which its file has more bits per weight than int4."""
        return len(self.shape) > 1 and 8 * self.size_bytes > WIDE_BITS * self.elements

    @property
    def stack(self) -> str:
        """The name of the matrix that it is stacked into."""
        return ".".join(_STACKS.get(part, part) for part in self.name.split("."))


class LayerWeights(msgspec.Struct, frozen=True):
    """The matrices of all layers: what a weight format is about, and most of a large model.

    Embedding and head are not among them: small quantised models keep those with more bits.
    """

    parameters: int
    size_bytes: int
    wide_parameters: int = 0
    """Those in matrices, stacked as the kernels have them, with any part that `is_wide`."""

    @property
    def int8_parameters(self) -> int:
        """What int4 leaves as int8: wide ones, unless all are and int4 is wanted for its size."""
        return self.wide_parameters if self.wide_parameters < self.parameters else 0

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file for each weight, scales included; 32 where there is none."""
        return 8 * self.size_bytes / self.parameters if self.parameters else 32.0


def layer_weights(tensors: Iterable[StoredTensor]) -> LayerWeights:
    """Count the matrices of layers among `tensors`."""
    matrices = [tensor for tensor in tensors if tensor.is_in_layer and len(tensor.shape) > 1]
    wide = {tensor.stack for tensor in matrices if tensor.is_wide}
    return LayerWeights(
        parameters=sum(tensor.elements for tensor in matrices),
        size_bytes=sum(tensor.size_bytes for tensor in matrices),
        wide_parameters=sum(tensor.elements for tensor in matrices if tensor.stack in wide),
    )
