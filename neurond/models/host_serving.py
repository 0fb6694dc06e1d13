"""From packed weights to an engine on the host's processors."""

from cortex_core.errors import OutOfMemory
from cortex_core.neuron_api import Speculation
from neurond.engine.host_runner import HostRunner, Tower
from neurond.engine.host_sizes import StepBounds, embed_bytes, step_bytes
from neurond.kernels.abi import ABI, BLOCK_TOKENS
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.memory import KvFormat
from neurond.kernels.packed_file import PackedDecoder
from neurond.kernels.packed_model import PackedModel, struct_of
from neurond.memory_plan import CPU_ACTIVATION_BYTES, EMBED_TOKENS, draft_rows, step_rows
from neurond.models.model_serving import ModelServing, kv_sizes, step_tokens_for


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
        most = _most_of_a_step(max_sequences, speculation, two_way_tokens)
        try:
            runner = HostRunner(
                kernels,
                pool,
                packed,
                kernels.kv_pages(packed.struct, sizes.num_blocks, kv_format),
                max_tokens=most.tokens,
                max_sequences=max_sequences,
                max_rows=most.rows,
                vision=vision,
            )
        except OSError as ex:
            raise OutOfMemory(
                f"cannot reserve memory for steps of {most.tokens} tokens: {ex.strerror}; lower "
                "the model's max_sequences"
            ) from ex
        computed_by = f"{decoder.weight_format}-{kernels.variant}-r{ABI}"
        weights_id = f"{decoder.weights_hash}-{computed_by}"
        if kv_format != "bf16":
            weights_id += f"-kv-{kv_format}"
        super().__init__(
            runner,
            sizes,
            weights_id,
            max_sequences,
            most.tokens,
            _draft_rows(speculation),
            two_way_tokens,
        )

    def make_resident(self, frontier: int) -> bool:
        """See `ServedModel.make_resident`."""
        assert isinstance(self._runner, HostRunner), "the model has been closed"
        return self._runner.make_resident(frontier)

    def stepped(self, took_s: float) -> None:
        """See `ServedModel.stepped`."""
        assert isinstance(self._runner, HostRunner), "the model has been closed"
        self._runner.stepped(took_s)


def activation_bytes(
    decoder: PackedDecoder,
    kernels: Kernels,
    pool: Pool,
    *,
    context_tokens: int,
    max_sequences: int,
    speculation: Speculation | None,
) -> int:
    """Return what such a decoder takes beside weights and KV cache, for vectors too.

    It is what `memory_plan.activation_bytes` estimates.
    """
    sizes = struct_of(decoder)
    most = _most_of_a_step(max_sequences, speculation, decoder.two_way_tokens or 0)
    longest_input = min(context_tokens, EMBED_TOKENS)
    steps = step_bytes(kernels, pool, sizes, most)
    return CPU_ACTIVATION_BYTES + steps + embed_bytes(kernels, pool, sizes, longest_input)


def _most_of_a_step(
    max_sequences: int, speculation: Speculation | None, two_way_tokens: int
) -> StepBounds:
    return StepBounds.of(
        max_tokens=step_tokens_for(max_sequences, two_way_tokens),
        max_sequences=max_sequences,
        max_rows=step_rows(max_sequences, _draft_rows(speculation)),
        two_way_tokens=two_way_tokens,
    )


def _draft_rows(speculation: Speculation | None) -> int:
    return draft_rows(speculation or "ngram")
