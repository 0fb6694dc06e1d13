"""From packed weights to an engine on the host's processors."""

from cortex_core.errors import OutOfMemory
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.engine.host_runner import HostRunner
from neurond.engine.kv_cache import LayerShape
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.packed_model import PackedModel
from neurond.models.serving import STEP_TOKENS, kv_sizes

KV_VALUE_BYTES = 2
"""Keys and values are kept in bfloat16."""


class HostServing:
    """A packed model with its KV cache. Owns both until `close`; the pool is the device's."""

    def __init__(
        self,
        packed: PackedModel,
        kernels: Kernels,
        pool: Pool,
        *,
        context_tokens: int,
        max_sequences: int,
        kv_cache_bytes: int,
    ) -> None:
        """Reserve the KV cache and what steps need.

        Raises:
            OutOfMemory: it does not fit what is given, or what the host has.
        """
        decoder = packed.decoder
        self.sizes = kv_sizes(
            [
                LayerShape(each.num_kv_heads, each.head_dim, each.head_dim)
                for each in decoder.layers
            ],
            value_bytes=KV_VALUE_BYTES,
            context_tokens=min(context_tokens, packed.context_tokens),
            max_sequences=max_sequences,
            kv_cache_bytes=kv_cache_bytes,
            block_tokens=BLOCK_TOKENS,
        )
        self.weights_id = f"{decoder.weights_hash}-{decoder.weight_format}-{kernels.variant}"
        step_tokens = max(STEP_TOKENS, max_sequences)
        try:
            self._runner: HostRunner | None = HostRunner(
                kernels,
                pool,
                packed,
                kernels.kv_pages(packed.struct, self.sizes.num_blocks),
                max_tokens=step_tokens,
                max_sequences=max_sequences,
            )
        except OSError as ex:
            raise OutOfMemory(
                f"cannot reserve memory for steps of {step_tokens} tokens: {ex.strerror}; lower "
                "the model's max_sequences"
            ) from ex
        self._config = SchedulerConfig(
            num_blocks=self.sizes.num_blocks,
            context_tokens=self.sizes.context_tokens,
            block_tokens=BLOCK_TOKENS,
            max_sequences=max_sequences,
            step_tokens=step_tokens,
        )

    def new_engine(self) -> Engine:
        """Return an engine over the cache; the former one must not step any more."""
        assert self._runner is not None, "the model has been closed"
        return Engine(self._runner, self._config)

    def close(self) -> None:
        """Let go of weights and cache; they are freed with the engines made here."""
        self._runner = None
