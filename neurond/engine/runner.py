"""Computes a scheduled batch: tensors, forward pass, K/V, sampling.

One runner serves one loaded model and owns its KV cache. A step only submits work to the device
until the chosen tokens are fetched at its end.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from cortex_core.errors import OutOfMemory
from neurond.attention.base import AttentionBatch
from neurond.engine.masks import masks_of
from neurond.engine.sampler import Choices, sample
from neurond.engine.upload import upload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from cortex_core.errors import ErrorInfo
    from neurond.attention.base import AttentionBackend, AttentionParams, AttentionPlan
    from neurond.engine.batch import SampledToken, ScheduledBatch
    from neurond.engine.kv_cache import KvCache
    from neurond.engine.vision import Vision


@dataclass(frozen=True, slots=True)
class _Step:
    """What the attention layers of one forward pass share; see `attention_hook.PagedStep`."""

    cache: KvCache
    plan: AttentionPlan
    slots: torch.Tensor

    def attend(
        self,
        layer: nn.Module,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        index: int = layer.kv_layer  # type: ignore[assignment]  # set by the loader
        self.cache.write(index, keys, values, self.slots)
        key_pages, value_pages = self.cache.pages(index)
        return self.plan.attend(query, key_pages, value_pages, params)


class ModelRunner:
    """Runs one model. Called from the actor's one thread."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        backend: AttentionBackend,
        cache: KvCache,
        vision: Vision | None = None,
    ) -> None:
        self._model = model
        self._vision = vision
        self._device = device
        self._backend = backend
        self._cache = cache

    @torch.inference_mode()
    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        """See `Runner.execute`.

        Raises:
            RowFailed: an image of that row cannot be computed.
            OutOfMemory: the device has no memory for the step's activations.
        """
        try:
            return self.submit(batch).fetch(batch.rows)
        except torch.OutOfMemoryError as ex:
            raise OutOfMemory(
                f"cannot compute a step of {batch.num_tokens} tokens: {ex}; "
                "lower the model's number of sequences or its KV cache"
            ) from ex

    def submit(self, batch: ScheduledBatch) -> Choices:
        """Submit the step without waiting for the device; where no gradients are recorded."""
        fresh = _fresh_blocks(batch.slot_mapping, self._cache.block_tokens)
        if fresh:
            self._cache.clear(self._indices(fresh))
        plan = self._backend.plan(self._attention_batch(batch))
        step = _Step(self._cache, plan, self._indices(batch.slot_mapping))
        inputs = {
            "input_ids": self._indices(batch.token_ids)[None],
            "position_ids": self._indices(batch.positions)[None],
        }
        if batch.with_images:
            assert self._vision is not None, "a model of text got images"
            inputs = self._vision.inputs(batch.with_images, **inputs)
        logits = self._model(
            **inputs,
            use_cache=False,
            logits_to_keep=self._indices(batch.sample_rows),
            paged=step,
        ).logits
        return sample(logits[0], batch.rows, masks_of(batch.rows))

    def _indices(self, column: array[int]) -> torch.Tensor:
        return upload(column, torch.int64, self._device)

    def _lengths(self, column: array[int]) -> torch.Tensor:
        return upload(column, torch.int32, self._device)

    def _attention_batch(self, batch: ScheduledBatch) -> AttentionBatch:
        block_tokens = self._cache.block_tokens
        width = -(-batch.max_seqlen_k // block_tokens)
        padded = array("i")
        for table, kv_len in zip(batch.block_tables, batch.seq_lens_k, strict=True):
            num_blocks = -(-kv_len // block_tokens)
            padded.extend(table[:num_blocks])
            padded.extend([self._cache.blank_block] * (width - num_blocks))
        return AttentionBatch(
            cu_seqlens_q=self._lengths(batch.cu_seqlens_q),
            seq_lens_k=self._lengths(batch.seq_lens_k),
            block_tables=self._lengths(padded).view(-1, width),
            query_lens=tuple(end - start for start, end in pairwise(batch.cu_seqlens_q)),
            kv_lens=tuple(batch.seq_lens_k),
            num_decodes=batch.num_decodes,
            max_seqlen_q=batch.max_seqlen_q,
            max_seqlen_k=batch.max_seqlen_k,
            block_tokens=block_tokens,
        )


def _fresh_blocks(slots: array[int], block_tokens: int) -> array[int]:
    """Return the blocks of which `slots` hold the first place: their first use since allocation."""
    return array("i", (slot // block_tokens for slot in slots if slot % block_tokens == 0))
