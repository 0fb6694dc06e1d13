"""Computes a scheduled batch: tensors, forward pass, K/V, sampling.

One runner serves one loaded model and owns its KV cache. A step only submits work to the device
until the chosen tokens are fetched at its end.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from cortex_core.errors import OutOfMemory
from neurond.attention.base import AttentionBatch
from neurond.engine.blocks import blocks_for
from neurond.engine.decode_graphs import DecodeColumns, DecodeGraphs, Recorder
from neurond.engine.masks import masks_of
from neurond.engine.query_parts import query_parts
from neurond.engine.rehearsal import rehearsal
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
        self._graphs: DecodeGraphs | None = None

    @torch.inference_mode()
    def record_decodes(
        self, recorder: Recorder, *, max_sequences: int, context_tokens: int
    ) -> None:
        """Record steps of decodes alone, to be replayed from now on. Before the first step.

        Raises:
            NotRecordable: this model's steps cannot be recorded; they are submitted as before.
        """
        assert self._backend.can_be_recorded, f"{self._backend.name} cannot be recorded"
        self._graphs = DecodeGraphs(
            recorder,
            self._compute_decodes,
            self._cache,
            max_sequences=max_sequences,
            context_tokens=context_tokens,
        )

    @torch.inference_mode()
    def rehearse(self, step_tokens: int, max_rows: int, context_tokens: int) -> None:
        """Compute the step that takes most memory: a prompt's tokens, a draw for each of
        `max_rows` of them, no more than `step_tokens`, and the longest run of an image that is
        seen both ways behind the longest context.

        It tells at once what the first such requests would find out, and they do not wait for
        libraries to be opened. Leaves the blank block as it was. Before the first step.

        Raises:
            OutOfMemory: the device has no memory for such a step.
        """
        two_way_tokens = 0
        # Other positions than places are those of a prompt's images, of which there are none here.
        if self._vision is not None and self._vision.is_plain:
            two_way_tokens = self._vision.two_way_tokens
        self.execute(rehearsal(self._cache, step_tokens, max_rows, context_tokens, two_way_tokens))
        self._cache.clear(self._indices(array("i", [self._cache.blank_block])))

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
        # A recorded step has one position for a token, behind an image there are three.
        graphs = None if batch.with_images else self._graphs
        logits = graphs.run(batch) if graphs is not None else None
        if logits is None:
            logits = self._compute(
                self._inputs(batch),
                self._indices(batch.slot_mapping),
                self._attention_batch(batch),
                self._indices(batch.sample_rows),
            )
        return sample(logits, batch.rows, masks_of(batch.rows))

    def _inputs(self, batch: ScheduledBatch) -> dict[str, torch.Tensor]:
        inputs = {
            "input_ids": self._indices(batch.token_ids)[None],
            "position_ids": self._indices(batch.positions)[None],
        }
        if not batch.with_images:
            return inputs
        assert self._vision is not None, "a model of text got images"
        return self._vision.inputs(batch.with_images, **inputs)

    def _compute(
        self,
        inputs: dict[str, torch.Tensor],
        slots: torch.Tensor,
        attention: AttentionBatch,
        sample_rows: torch.Tensor | int,
    ) -> torch.Tensor:
        """Submit the forward pass; return the logits of `sample_rows`, of all where that is 0."""
        output = self._model(
            **inputs,
            use_cache=False,
            logits_to_keep=sample_rows,
            paged=_Step(self._cache, self._backend.plan(attention), slots),
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _compute_decodes(self, columns: DecodeColumns) -> torch.Tensor:
        inputs = {
            "input_ids": columns.token_ids[None],
            "position_ids": columns.positions[None],
        }
        return self._compute(inputs, columns.slots, columns.attention, 0)

    def _indices(self, column: array[int]) -> torch.Tensor:
        return upload(column, torch.int64, self._device)

    def _lengths(self, column: array[int]) -> torch.Tensor:
        return upload(column, torch.int32, self._device)

    def _attention_batch(self, batch: ScheduledBatch) -> AttentionBatch:
        block_tokens = self._cache.block_tokens
        width = blocks_for(batch.max_seqlen_k, block_tokens)
        parts = query_parts(batch)
        padded, blanks = array("i"), array("i", [self._cache.blank_block])
        for part in parts:
            num_blocks = blocks_for(part.kv_len, block_tokens)
            padded.extend(batch.block_tables[part.sequence][:num_blocks])
            padded.extend(blanks * (width - num_blocks))
        query_lens = [part.num_queries for part in parts]
        kv_lens = array("i", (part.kv_len for part in parts))
        two_way = tuple(part.two_way for part in parts)
        return AttentionBatch(
            cu_seqlens_q=self._lengths(array("i", accumulate(query_lens, initial=0))),
            seq_lens_k=self._lengths(kv_lens),
            block_tables=self._lengths(padded).view(-1, width),
            query_lens=tuple(query_lens),
            kv_lens=tuple(kv_lens),
            num_decodes=batch.num_decodes,
            max_seqlen_q=max(query_lens),
            max_seqlen_k=batch.max_seqlen_k,
            block_tokens=block_tokens,
            two_way=two_way if any(two_way) else (),
        )


def _fresh_blocks(slots: array[int], block_tokens: int) -> array[int]:
    """Return the blocks of which `slots` hold the first place: their first use since allocation."""
    return array("i", (slot // block_tokens for slot in slots if slot % block_tokens == 0))
