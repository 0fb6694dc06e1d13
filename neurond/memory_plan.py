"""How much memory a model takes on a device, and whether it fits. Pure arithmetic.

Weights come from the file headers, the KV cache from context and concurrency. What the operator
named is kept or refused; what was left open is chosen so that it fits.
"""

import msgspec

from cortex_core.errors import InvalidRequest, OutOfMemory
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import Dtype, KvDtype, ModelProfile, Speculation
from cortex_core.sizes import MIB
from neurond.kv_choice import kv_bytes_per_token
from neurond.sources.prepared import PreparedModel
from neurond.weight_choice import DeviceKind, WeightChoice

BLOCK_TOKENS = 16
"""The CPU kernels' own, `neurond.kernels.abi`; torch's reference takes any."""
PAGED_BLOCK_TOKENS = 256
"""Where the attention backend wants pages of so many tokens; others take them too."""
CUDA_STEP_TOKENS = 2048
"""Query tokens in one step of a CUDA device, at least: with fewer it waits for the host, whose part
of a step is the same for any number."""
CPU_STEP_TOKENS = 512
"""The same of a CPU, for which a step of so many takes long already."""
SCORED_ROWS = 32
"""Rows that a step has logits for at least, so that prompts are scored by more than one token a
step; each is a float32 for every token of the vocabulary."""
CPU_DRAFT_ROWS = SCORED_ROWS
CUDA_DRAFT_ROWS = 48
"""Most rows of a decode step with drafts; how many pay is found out while it runs
(`neurond.engine.draft_pace`). On a CPU, as many as there is room for anyway."""
EMBED_TOKENS = 2048
"""Of an input that a decoder makes a vector of: it is computed whole, in one step."""
ACTIVATION_BYTES = 256 * MIB
"""Kept free for the largest step that torch computes on a CPU."""
CPU_ACTIVATION_BYTES = 128 * MIB
"""With the CPU kernels, of this for what does not depend on the model: the process and its
requests."""
_PACKING_BYTES = 128 * MIB
"""Of packing for what does not depend on the model: the pieces that are packed, and few tokens."""
_CPU_THREAD_BYTES, _CPU_THREAD_DIM_BYTES = 512 * 1024, 18 * 1024
"""Most that attention takes for each thread, and for each dimension of a head: with tiles."""
_CPU_DRAW_BYTES = 9
"""Of each token of the vocabulary for each thread, while tokens are chosen."""
_CUDA_ACTIVATION_BYTES = 512 * MIB
"""Of this for what does not depend on the model: libraries, recorded steps, draws, gathered K/V."""
_STATES_PER_TOKEN = 24
"""Of a decoder's width, that a layer has of one token at once, with those between its matrices."""
_LOGIT_BYTES = 8
"""Of each logit of a step, as the model computes it and in float32."""
DEFAULT_MAX_SEQUENCES = 64
"""In one step. How many find room is decided by the KV cache, whose size has bounds of its own."""
KV_SHARE_OF_FREE = 0.5
"""Of the memory that weights leave, where the profile does not say how much KV cache to hold: the
rest is for other models."""
CPU_KV_BYTES = 1024 * MIB
"""Most that is taken of host memory where the profile does not say: it is everyone's."""
MIN_CONTEXT_TOKENS = 8192
"""A context that nobody named is not shrunk below this, unless the model's own is shorter."""
MAX_ROPE_POSITIONS = 131_072
"""Longest context that packed weights have rotary tables for: 64 MiB for heads of 128."""
_WEIGHT_BYTES: dict[Dtype, float] = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "int8": 1.0625,
    "int4": 0.625,
}
"""Of one weight of a matrix, with its share of the scales."""
_HEAD_DTYPES: dict[Dtype, Dtype] = {"bfloat16": "bfloat16", "int8": "int8", "int4": "int8"}
"""Of packed weights, by what the layers are in; a head that is tied to the embedding is a copy."""

_OF_LARGE_PAGES = ("flash-attn-2", "triton", "torch-varlen")
_OF_DECODERS = (
    "kv_cache_mb",
    "kv_dtype",
    "max_sequences",
    "chat_template",
    "tool_parser",
    "reasoning_parser",
)


class MemoryPlan(msgspec.Struct, frozen=True):
    """What to ask the actor for."""

    dtype: Dtype
    context_tokens: int
    max_sequences: int
    weights_bytes: int
    kv_cache_bytes: int
    block_tokens: int = BLOCK_TOKENS
    fallback_dtype: Dtype | None = None
    """See `weight_choice.WeightChoice`."""
    kv_dtype: KvDtype | None = None
    """See `kv_choice.choose_kv`."""
    activation_bytes: int = ACTIVATION_BYTES

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes


def weights_bytes(model: PreparedModel, dtype: Dtype, kind: DeviceKind) -> int:
    """Return the bytes of a model's weights on a device.

    On a CPU all are packed but float32 and those of models that torch computes.
    """
    if kind == "cuda" or dtype == "float32" or not model.has_plan:
        return unpacked_bytes(model, dtype)
    return packed_bytes(model, dtype)


def unpacked_bytes(model: PreparedModel, dtype: Dtype) -> int:
    """Return the bytes of a model's weights as torch holds them."""
    return int(model.num_parameters * _WEIGHT_BYTES[dtype])


def packed_bytes(model: PreparedModel, dtype: Dtype) -> int:
    """Return the bytes of a model's weights as the CPU kernels have them, in a file or not.

    With them what looks at images, which torch has in float32 at most.
    """
    layers = model.layers.parameters * _WEIGHT_BYTES[dtype]
    if dtype == "int4":
        left = _WEIGHT_BYTES["int8"] - _WEIGHT_BYTES["int4"]
        layers += model.layers.int8_parameters * left
    each = _WEIGHT_BYTES["bfloat16"] + _WEIGHT_BYTES[_HEAD_DTYPES[dtype]]
    ropes = 4 * model.head_dim * min(model.context_tokens, MAX_ROPE_POSITIONS)
    tower = _WEIGHT_BYTES["float32"] * (model.images.tower_parameters if model.images else 0)
    return int(layers + model.vocab_size * model.hidden_size * each + ropes + tower)


def packing_bytes(model: PreparedModel) -> int:
    """Return what the first load on a CPU takes beside the packed weights while it packs them.

    Most of it is one layer in float32, on which the plan is proven.
    """
    layer = model.layers.parameters // max(model.num_layers, 1)
    return _PACKING_BYTES + int(layer * _WEIGHT_BYTES["float32"])


def step_rows(max_sequences: int, max_draft_rows: int) -> int:
    """Return the rows that a step may have logits for: more than sequences, where there are few."""
    return max(max_sequences, max_draft_rows, SCORED_ROWS)


def draft_rows(speculation: Speculation, *, on_cuda: bool = False) -> int:
    """Return the most rows of a step with drafts, 0 for none."""
    if speculation == "off":
        return 0
    return CUDA_DRAFT_ROWS if on_cuda else CPU_DRAFT_ROWS


def activation_bytes(
    model: PreparedModel,
    dtype: Dtype,
    kind: DeviceKind,
    max_sequences: int,
    *,
    threads: int = 1,
    speculation: Speculation = "off",
) -> int:
    """Return what to keep free for the largest step of a decoder.

    `threads` are those of a CPU device, which has room for drafts anyway. What its kernels take is
    estimated here, and a little high: they say themselves what it is once they see the weights,
    see `engine.host_sizes`.
    """
    if kind == "cpu":
        with_kernels = dtype != "float32" and model.has_plan
        return _kernels_bytes(model, max_sequences, threads) if with_kernels else ACTIVATION_BYTES
    tokens = max(CUDA_STEP_TOKENS, max_sequences)
    states = tokens * model.hidden_size * _STATES_PER_TOKEN * int(_WEIGHT_BYTES[dtype])
    rows = step_rows(max_sequences, draft_rows(speculation, on_cuda=True))
    return _CUDA_ACTIVATION_BYTES + states + rows * model.vocab_size * _LOGIT_BYTES


def _kernels_bytes(model: PreparedModel, max_sequences: int, threads: int) -> int:
    """Estimate what the CPU kernels take for steps that generate, and for one that embeds."""
    decoded = max(CPU_STEP_TOKENS, max_sequences)
    embedded = max(CPU_STEP_TOKENS, min(model.context_tokens, EMBED_TOKENS))
    # What all matrices of a layer make of a token is no less than what is kept of it between two.
    made = model.layers.parameters // max(model.num_layers * model.hidden_size, 1)  # 0 of a script
    token = 4 * (2 * model.hidden_size + made)
    thread = _CPU_THREAD_BYTES + _CPU_THREAD_DIM_BYTES * model.head_dim
    scratch = (decoded + embedded) * token + 2 * threads * thread
    vectors = (
        EMBED_TOKENS * kv_bytes_per_token(model, "bfloat16") + 4 * embedded * model.hidden_size
    )
    rows = step_rows(max_sequences, CPU_DRAFT_ROWS)
    logits = (4 * rows + _CPU_DRAW_BYTES * threads) * model.vocab_size
    return CPU_ACTIVATION_BYTES + scratch + vectors + logits


def block_tokens_for(kind: DeviceKind, attention_backend: str | None) -> int:
    """Return the tokens of a block on a device, whose backend may not be known yet."""
    paged = kind == "cuda" if attention_backend is None else attention_backend in _OF_LARGE_PAGES
    return PAGED_BLOCK_TOKENS if paged else BLOCK_TOKENS


def plan_memory(
    model: PreparedModel,
    profile: ModelProfile,
    *,
    weights: WeightChoice,
    kv_dtype: KvDtype | None = None,
    device: DeviceName,
    kind: DeviceKind,
    free_bytes: int,
    default_kv_bytes: int | None = None,
    block_tokens: int = BLOCK_TOKENS,
    threads: int = 1,
) -> MemoryPlan:
    """Choose context, concurrency and KV cache of `model` for a device with `free_bytes`.

    `default_kv_bytes` bounds a KV cache that the profile leaves open, down to what one sequence
    of `MIN_CONTEXT_TOKENS`, or of the context that the profile names, takes. The cache is divided
    into whole blocks of `block_tokens`. `threads` are those of a CPU device.

    Raises:
        OutOfMemory: it does not fit; the message has the arithmetic.
        InvalidRequest: the profile contradicts itself, or asks of an encoder what none can do.
    """
    if not model.generates:
        return _plan_encoder(
            model, profile, dtype=weights.dtype, device=device, free_bytes=free_bytes
        )
    dtype = weights.dtype
    held = weights_bytes(model, dtype, kind)
    per_token = kv_bytes_per_token(model, kv_dtype or dtype)
    context = min(profile.context_tokens or model.context_tokens, model.context_tokens)
    sequences = profile.max_sequences or DEFAULT_MAX_SEQUENCES
    activations = activation_bytes(
        model,
        dtype,
        kind,
        sequences,
        threads=threads,
        speculation=profile.speculation or "off",
    )
    left = free_bytes - held - activations
    floor = context if profile.context_tokens else min(context, MIN_CONTEXT_TOKENS)
    least = _pool_tokens(floor, 1, block_tokens) * per_token
    whole = _pool_tokens(context, sequences, block_tokens) * per_token
    if profile.kv_cache_mb is not None:
        shortest = context if profile.context_tokens else min(context, block_tokens)
        kv = _named_cache(model, profile.kv_cache_mb, shortest, block_tokens, per_token)
    elif profile.max_sequences is not None and profile.context_tokens is not None:
        kv = whole
    else:
        share = int(left * KV_SHARE_OF_FREE)
        kv = min(whole, max(least, min(share, default_kv_bytes or share)))
    if kv > left:
        raise OutOfMemory(_arithmetic(model, dtype, device, held, kv, activations, free_bytes))
    fitting = (kv // per_token // block_tokens - 1) * block_tokens
    return MemoryPlan(
        dtype=dtype,
        context_tokens=min(context, fitting),
        max_sequences=sequences,
        weights_bytes=held,
        kv_cache_bytes=kv,
        block_tokens=block_tokens,
        # Torch has no such keys and values: who names them wants the kernels.
        fallback_dtype=None if profile.kv_dtype == "int8" else weights.fallback_dtype,
        kv_dtype=kv_dtype,
        activation_bytes=activations,
    )


def _plan_encoder(
    model: PreparedModel,
    profile: ModelProfile,
    *,
    dtype: Dtype,
    device: DeviceName,
    free_bytes: int,
) -> MemoryPlan:
    """Plan weights and activations: an encoder keeps no keys and values."""
    for field in _OF_DECODERS:
        if getattr(profile, field) is not None:
            raise InvalidRequest(
                f"cannot load {model.model_id}: it is an encoder, which has no use for {field}; "
                "leave it out",
                param=f"profile.{field}",
            )
    held = unpacked_bytes(model, dtype)
    if held > free_bytes - ACTIVATION_BYTES:
        raise OutOfMemory(_arithmetic(model, dtype, device, held, 0, ACTIVATION_BYTES, free_bytes))
    context = min(profile.context_tokens or model.context_tokens, model.context_tokens)
    return MemoryPlan(dtype, context, max_sequences=1, weights_bytes=held, kv_cache_bytes=0)


def _named_cache(
    model: PreparedModel, kv_cache_mb: int, context_tokens: int, block_tokens: int, per_token: int
) -> int:
    """Return the bytes of the cache that the profile names, if it holds such a sequence."""
    least = _pool_tokens(context_tokens, 1, block_tokens) * per_token
    if kv_cache_mb * MIB < least:
        raise InvalidRequest(
            f"cannot load {model.model_id}: kv_cache_mb is {kv_cache_mb}, one sequence of "
            f"{context_tokens} tokens takes {_mib(least)} MiB in blocks of {block_tokens}; raise "
            "it or lower context_tokens",
            param="profile.kv_cache_mb",
        )
    return kv_cache_mb * MIB


def _pool_tokens(context_tokens: int, sequences: int, block_tokens: int) -> int:
    """Return the tokens of whole blocks for so many sequences, and of the block that pads."""
    return (-(-context_tokens // block_tokens) * sequences + 1) * block_tokens


def _arithmetic(
    model: PreparedModel,
    dtype: str,
    device: DeviceName,
    weights: int,
    kv: int,
    activations: int,
    free: int,
) -> str:
    needed = weights + kv + activations
    return (
        f"cannot load {model.model_id} on {device}: it needs {_mib(needed)} MiB "
        f"(weights {_mib(weights)} in {dtype} + KV cache {_mib(kv)} + activations "
        f"{_mib(activations)}), free are {_mib(max(0, free))} MiB; lower context_tokens, "
        "max_sequences or kv_cache_mb, or unload another model"
    )


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
