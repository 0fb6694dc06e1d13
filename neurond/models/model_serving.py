"""From a runner to its engines, and how its KV cache is divided, whatever computes the model."""

from dataclasses import dataclass

from cortex_core.errors import OutOfMemory
from neurond.engine.batch import Runner
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.memory_plan import CPU_STEP_TOKENS, CUDA_STEP_TOKENS, step_rows


@dataclass(frozen=True, slots=True)
class KvSizes:
    """What the KV cache of a model comes to."""

    num_blocks: int
    block_tokens: int
    context_tokens: int
    """Longest sequence that model and cache can hold."""
    size_bytes: int


def kv_sizes(
    block_bytes: int,
    *,
    context_tokens: int,
    max_sequences: int,
    kv_cache_bytes: int,
    block_tokens: int,
) -> KvSizes:
    """Divide `kv_cache_bytes` into blocks, no more than can ever be used at once.

    Args:
        block_bytes: what one block takes over all layers.

    Raises:
        OutOfMemory: not even two blocks fit.
    """
    affordable = kv_cache_bytes // block_bytes - 1  # one stays blank, to pad tables
    if affordable < 1:
        raise OutOfMemory(
            f"cannot allocate a KV cache: {kv_cache_bytes} bytes are given, and 2 blocks of "
            f"{block_tokens} tokens take {2 * block_bytes}; give the model a larger KV cache"
        )
    usable = max_sequences * -(-context_tokens // block_tokens)
    num_blocks = min(affordable, usable)
    return KvSizes(
        num_blocks=num_blocks,
        block_tokens=block_tokens,
        context_tokens=min(context_tokens, num_blocks * block_tokens),
        size_bytes=(num_blocks + 1) * block_bytes,
    )


def step_tokens_for(max_sequences: int, two_way_tokens: int = 0, *, on_cuda: bool = False) -> int:
    """Return the query tokens that a step may have: every sequence can decode in each, and beside
    them `two_way_tokens` of an image be computed.
    """
    return max(CUDA_STEP_TOKENS if on_cuda else CPU_STEP_TOKENS, max_sequences + two_way_tokens)


class ModelServing:
    """A runner with its KV cache, from which engines are made. Owns both until `close`."""

    def __init__(
        self,
        runner: Runner,
        sizes: KvSizes,
        weights_id: str,
        max_sequences: int,
        step_tokens: int,
        max_draft_rows: int = 0,
        two_way_tokens: int = 0,
    ) -> None:
        self.sizes = sizes
        self.weights_id = weights_id
        self._runner: Runner | None = runner
        self._config = SchedulerConfig(
            num_blocks=sizes.num_blocks,
            context_tokens=sizes.context_tokens,
            block_tokens=sizes.block_tokens,
            max_sequences=max_sequences,
            step_tokens=step_tokens,
            max_draft_rows=max_draft_rows,
            max_rows=step_rows(max_sequences, max_draft_rows),
            two_way_tokens=two_way_tokens,
        )

    def new_engine(self) -> Engine:
        """Return an engine over an empty cache; the former one must not step any more."""
        assert self._runner is not None, "the model has been closed"
        return Engine(self._runner, self._config)

    def close(self) -> None:
        """Let go of weights and cache; they are freed with the engines made here."""
        self._runner = None
