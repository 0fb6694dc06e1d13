"""What steps of a packed model take of the host's memory beside weights and KV cache.

The kernels say it of sizes alone, before anything is read or reserved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from neurond.kernels.abi import BLOCK_TOKENS
from neurond.memory_plan import CPU_STEP_TOKENS, EMBED_TOKENS

if TYPE_CHECKING:
    from neurond.kernels import abi
    from neurond.kernels.library import Kernels, Pool

FLOAT_BYTES: Final = 4
EMBED_BLOCKS: Final = EMBED_TOKENS // BLOCK_TOKENS
"""Of K/V for one step of inputs that become vectors: one of the longest, or many short ones, of
which each takes whole blocks."""


class StepBounds(NamedTuple):
    """The most that a step computes."""

    tokens: int
    sequences: int
    rows: int

    @classmethod
    def of(
        cls, *, max_tokens: int, max_sequences: int, max_rows: int, two_way_tokens: int
    ) -> StepBounds:
        """Return the bounds of what the kernels see."""
        # Where images are seen both ways each token may be a sequence: see `query_parts`.
        return cls(max_tokens, max_tokens if two_way_tokens else max_sequences, max_rows)


def step_bytes(kernels: Kernels, pool: Pool, model: abi.Model, bounds: StepBounds) -> int:
    """Return what stays reserved for steps: scratch, logits and what choosing tokens takes."""
    scratch = kernels.scratch_bytes(model, pool, *bounds)
    logits: int = FLOAT_BYTES * bounds.rows * model.vocab_size
    return scratch + logits + kernels.sampler_bytes(pool, model.vocab_size)


def embed_bytes(kernels: Kernels, pool: Pool, model: abi.Model, longest_input: int) -> int:
    """Return what a step takes at most that makes vectors, while it lasts: see `HostStates`."""
    tokens = max(CPU_STEP_TOKENS, longest_input)
    pages = sum(kernels.kv_bytes(model, EMBED_BLOCKS, "bf16"))
    states: int = FLOAT_BYTES * tokens * model.hidden
    return kernels.scratch_bytes(model, pool, tokens, EMBED_BLOCKS, tokens) + pages + states
