"""Vectors from a decoder that torch computes: the last hidden states of whole inputs, pooled.

No K/V is kept: the tokens of a step attend to each other alone, as a prompt's do. So nothing is
shared with the engine that generates with the same weights but the weights.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from cortex_core.errors import ErrorInfo, OutOfMemory
from neurond.attention.base import AttentionBatch, AttentionParams
from neurond.attention.reference import ReferenceBackend
from neurond.engine.embedding import EmbedInput
from neurond.models.loader import LoadedModel
from neurond.models.pooling import vectors_of
from neurond.sources.prepared import Pooling


class DecoderStates:
    """A loaded decoder as an `neurond.engine.embedding.Embedder`."""

    def __init__(self, loaded: LoadedModel, pooling: Pooling) -> None:
        self._decoder: Any = loaded.model.get_decoder()
        self._device = loaded.device.torch_device
        self._pooling = pooling
        self.dimensions: int = loaded.model.config.get_text_config().hidden_size

    @torch.inference_mode()
    def embed(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        """See `Embedder.embed`.

        Raises:
            OutOfMemory: the device has no memory for the step's activations.
        """
        lengths = [len(each.token_ids) for each in inputs]
        try:
            states = self._states([each.token_ids for each in inputs], lengths)
        except torch.OutOfMemoryError as ex:
            raise OutOfMemory(f"cannot compute a step of {sum(lengths)} tokens: {ex}") from ex
        return vectors_of(states.float().cpu().numpy(), inputs, self._pooling)

    def _states(self, inputs: Sequence["array[int]"], lengths: list[int]) -> torch.Tensor:
        ids = [id_ for each in inputs for id_ in each]
        positions = [position for length in lengths for position in range(length)]
        output = self._decoder(
            input_ids=torch.tensor([ids], device=self._device),
            position_ids=torch.tensor([positions], device=self._device),
            use_cache=False,
            paged=_WholeInputs(lengths, self._device),
        )
        states: torch.Tensor = output.last_hidden_state[0]
        return states


class _WholeInputs:
    """A step whose K/V are its own tokens', as pages of one token; see `attention_hook.PagedStep`.

    Not the device's backend: that wants pages of its own size.
    """

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        longest = max(lengths)
        starts = [0, *accumulate(lengths)]
        first = torch.tensor(starts[:-1], dtype=torch.int32, device=device)[:, None]
        # Behind the end of an input its table goes on into the next one; that is not read.
        table = first + torch.arange(longest, dtype=torch.int32, device=device)
        self._plan = ReferenceBackend().plan(
            AttentionBatch(
                cu_seqlens_q=torch.tensor(starts, dtype=torch.int32, device=device),
                seq_lens_k=torch.tensor(lengths, dtype=torch.int32, device=device),
                block_tables=table,
                query_lens=tuple(lengths),
                kv_lens=tuple(lengths),
                num_decodes=0,
                max_seqlen_q=longest,
                max_seqlen_k=longest,
                block_tokens=1,
            )
        )

    def attend(
        self,
        _layer: nn.Module,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        """See `PagedStep.attend`."""
        return self._plan.attend(query, keys[:, None], values[:, None], params)
