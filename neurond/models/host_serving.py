"""From packed weights to an engine on the host's processors."""

from cortex_core.errors import OutOfMemory
from cortex_core.neuron_api import Speculation
from neurond.engine.host_runner import HostRunner, Tower
from neurond.kernels.abi import ABI, BLOCK_TOKENS
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.memory import KvFormat
from neurond.kernels.packed_model import PackedModel
from neurond.models.model_serving import (
    ModelServing,
    draft_rows,
    kv_sizes,
    step_rows,
    step_tokens_for,
)


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
        kv_format: KvFormat = "bf16",
        speculation: Speculation | None = None,
        vision: Tower | None = None,
    ) -> None:
        """Reserve the KV cache and what steps need.

        Raises:
            OutOfMemory: it does not fit what is given, or what the host has.
        """
        decoder = packed.decoder
        sizes = kv_sizes(
            sum(kernels.kv_bytes(packed.struct, 1, kv_format)),
            context_tokens=min(context_tokens, packed.context_tokens),
            max_sequences=max_sequences,
            kv_cache_bytes=kv_cache_bytes,
            block_tokens=BLOCK_TOKENS,
        )
        two_way_tokens = vision.two_way_tokens if vision is not None else 0
        step_tokens = step_tokens_for(max_sequences, two_way_tokens)
        rows = draft_rows(speculation or "ngram")
        try:
            runner = HostRunner(
                kernels,
                pool,
                packed,
                kernels.kv_pages(packed.struct, sizes.num_blocks, kv_format),
                max_tokens=step_tokens,
                max_sequences=max_sequences,
                max_rows=step_rows(max_sequences, rows),
                vision=vision,
            )
        except OSError as ex:
            raise OutOfMemory(
                f"cannot reserve memory for steps of {step_tokens} tokens: {ex.strerror}; lower "
                "the model's max_sequences"
            ) from ex
        computed_by = f"{decoder.weight_format}-{kernels.variant}-r{ABI}"
        weights_id = f"{decoder.weights_hash}-{computed_by}"
        if kv_format != "bf16":
            weights_id += f"-kv-{kv_format}"
        super().__init__(
            runner, sizes, weights_id, max_sequences, step_tokens, rows, two_way_tokens
        )

    def make_resident(self, frontier: int) -> bool:
        """See `ServedModel.make_resident`."""
        assert isinstance(self._runner, HostRunner), "the model has been closed"
        return self._runner.make_resident(frontier)
