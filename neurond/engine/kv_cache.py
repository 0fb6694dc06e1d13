"""The pages that hold K and V of every layer, and where they lie in memory."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from neurond.engine.kv_shape import LayerShape, kv_block_bytes


class KvCache:
    """Pages of every layer, `[num_blocks + 1, block_tokens, num_kv_heads, dim]` each.

    Owned by one runner. Written by slot, which is block id * block_tokens + offset in the block;
    read by attention backends through `pages`. The last page, `blank_block`, is no sequence's and
    pads block tables; rows of a recorded step that no sequence needs write to it. A block is zeroed
    when it is first written to, so what a query does not see is finite: a masked NaN that a former
    owner left would spread to its successor's output.
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        *,
        num_blocks: int,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.device = device
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.blank_block = num_blocks
        self.size_bytes = (num_blocks + 1) * kv_block_bytes(layers, block_tokens, dtype.itemsize)
        self._stores: list[torch.Tensor] = []
        self._pages: list[tuple[torch.Tensor, torch.Tensor]] = []
        stores: dict[LayerShape, Iterator[tuple[torch.Tensor, torch.Tensor]]] = {}
        for shape, count in Counter(layers).items():
            pages = (count, num_blocks + 1, block_tokens, shape.num_kv_heads)
            keys = torch.zeros((*pages, shape.key_dim), dtype=dtype, device=device)
            values = torch.zeros((*pages, shape.value_dim), dtype=dtype, device=device)
            self._stores += [keys, values]
            stores[shape] = zip(keys, values, strict=True)
        for shape in layers:
            self._pages.append(next(stores[shape]))

    def clear(self, blocks: torch.Tensor) -> None:
        """Zero `blocks` (int64) in every layer."""
        for store in self._stores:
            store.index_fill_(1, blocks, 0)

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
    ) -> None:
        """Store `keys` and `values` [T, num_kv_heads, dim] at `slots` [T], int64."""
        key_pages, value_pages = self._pages[layer]
        key_pages.flatten(0, 1).index_copy_(0, slots, keys)
        value_pages.flatten(0, 1).index_copy_(0, slots, values)

    def pages(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return key and value pages of a layer."""
        return self._pages[layer]
