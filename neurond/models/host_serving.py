"""From packed weights to an engine on the host's processors."""

from cortex_core.errors import OutOfMemory
from cortex_core.neuron_api import Speculation
from neurond.engine.host_runner import HostRunner
from neurond.engine.kv_shape import LayerShape
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.packed_model import PackedModel
from neurond.models.model_serving import ModelServing, draft_rows, kv_sizes, step_tokens_for

KV_VALUE_BYTES = 2
"""Keys and values are kept in bfloat16."""


class HostServing(ModelServing):
    """A packed model that the CPU kernels compute; the pool is the device's."""

    def __init__(
        self,
        packed: PackedModel,
        kernels: Kernels,
        pool: Pool,
        *,
        context_tokens: int,
        max_sequences: int,
        kv_cache_bytes: int,
        speculation: Speculation = "off",
    ) -> None:
        """Reserve the KV cache and what steps need.

        Raises:
            OutOfMemory: it does not fit what is given, or what the host has.
        """
        decoder = packed.decoder
        heads = [(layer.num_kv_heads, layer.head_dim) for layer in decoder.layers]
        sizes = kv_sizes(
            [LayerShape(count, dim, dim) for count, dim in heads],
            value_bytes=KV_VALUE_BYTES,
            context_tokens=min(context_tokens, packed.context_tokens),
            max_sequences=max_sequences,
            kv_cache_bytes=kv_cache_bytes,
            block_tokens=BLOCK_TOKENS,
        )
        step_tokens = step_tokens_for(max_sequences)
        rows = draft_rows(speculation)
        try:
            runner = HostRunner(
                kernels,
                pool,
                packed,
                kernels.kv_pages(packed.struct, sizes.num_blocks),
                max_tokens=step_tokens,
                max_sequences=max_sequences,
                max_rows=max(max_sequences, rows),
            )
        except OSError as ex:
            raise OutOfMemory(
                f"cannot reserve memory for steps of {step_tokens} tokens: {ex.strerror}; lower "
                "the model's max_sequences"
            ) from ex
        weights_id = f"{decoder.weights_hash}-{decoder.weight_format}-{kernels.variant}"
        super().__init__(runner, sizes, weights_id, max_sequences, rows)
