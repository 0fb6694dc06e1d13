"""Whether a backend's decodes are right on a device, found out before a model is served with it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from neurond.attention.base import AttentionBackend, AttentionBatch, AttentionParams
from neurond.attention.reference import ReferenceBackend
from neurond.engine.kv_shape import LayerShape

_KV_LENS = (5, 300)
"""One that ends in its first page, and one in its second."""
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 3e-2}


@dataclass(frozen=True, slots=True)
class Heads:
    """What one layer asks of attention."""

    num_heads: int
    shape: LayerShape
    params: AttentionParams


TYPICAL = Heads(32, LayerShape(8, 128, 128), AttentionParams(128**-0.5))


def why_not(
    backend: AttentionBackend, layers: Iterable[Heads], dtype: torch.dtype, device: torch.device
) -> str | None:
    """Return why `backend` does not serve decodes of such `layers`; None if it does.

    Raises:
        torch.AcceleratorError: the device is lost.
    """
    kinds = {
        (
            each.num_heads,
            each.shape,
            each.params.window,
            each.params.softcap,
            each.params.sinks is None,
        ): each
        for each in layers
    }
    for layer in kinds.values():
        try:
            agrees = _agrees(backend, layer, dtype, device)
        except torch.AcceleratorError:
            raise
        except Exception as ex:  # noqa: BLE001 - whatever a compiler says, others can serve
            return f"{type(ex).__name__}: {ex}".partition("\n")[0]
        if not agrees:
            return f"its results are wrong for {layer.num_heads} heads of {layer.shape}"
    return None


def _agrees(
    backend: AttentionBackend, layer: Heads, dtype: torch.dtype, device: torch.device
) -> bool:
    page_tokens, shape = backend.page_multiple_tokens, layer.shape
    widths = [-(-kv_len // page_tokens) for kv_len in _KV_LENS]
    random = torch.Generator().manual_seed(0)

    def values(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=random).to(device, dtype)

    pages = (sum(widths), page_tokens, shape.num_kv_heads)
    # One tensor for both, as a cache has them for all layers: then they have the same strides.
    keys, vals = values(2, *pages, shape.key_dim).unbind(0)
    query = values(len(_KV_LENS), layer.num_heads, shape.key_dim)
    # From the last page to the first, so that places matter.
    tables = [[sum(widths) - 1] * max(widths) for _ in widths]
    left = list(range(sum(widths)))
    for table, width in zip(tables, widths, strict=True):
        for place in range(width):
            table[place] = left.pop()
    batch = AttentionBatch(
        cu_seqlens_q=torch.arange(len(_KV_LENS) + 1, dtype=torch.int32, device=device),
        seq_lens_k=torch.tensor(_KV_LENS, dtype=torch.int32, device=device),
        block_tables=torch.tensor(tables, dtype=torch.int32, device=device),
        query_lens=(1,) * len(_KV_LENS),
        kv_lens=_KV_LENS,
        num_decodes=len(_KV_LENS),
        max_seqlen_q=1,
        max_seqlen_k=max(_KV_LENS),
        block_tokens=page_tokens,
    )
    found, expected = (
        each.plan(batch).attend(query, keys, vals, layer.params).float()
        for each in (backend, ReferenceBackend())
    )
    tolerance = _TOLERANCE[dtype]
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
