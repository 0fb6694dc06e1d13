"""What the K/V of a model's layers take, whatever computes them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerShape:
    """K/V of one attention layer."""

    num_kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def values_per_token(self) -> int:
        return self.num_kv_heads * (self.key_dim + self.value_dim)


def kv_block_bytes(layers: Sequence[LayerShape], block_tokens: int, value_bytes: int) -> int:
    """Return the bytes that one block takes over all layers; `value_bytes` is of one number."""
    return sum(layer.values_per_token for layer in layers) * block_tokens * value_bytes
