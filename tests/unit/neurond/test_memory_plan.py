"""Whether a model fits, and what is allocated for it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest, OutOfMemory
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import ModelProfile
from cortex_core.sizes import MIB
from neurond.kv_choice import kv_bytes_per_token
from neurond.memory_plan import (
    ACTIVATION_BYTES,
    BLOCK_TOKENS,
    CPU_ACTIVATION_BYTES,
    CUDA_DRAFT_ROWS,
    CUDA_STEP_TOKENS,
    MIN_CONTEXT_TOKENS,
    PAGED_BLOCK_TOKENS,
    SCORED_ROWS,
    MemoryPlan,
    activation_bytes,
    block_tokens_for,
    packing_bytes,
    plan_memory,
    weights_bytes,
)
from neurond.sources.layer_weights import LayerWeights
from neurond.sources.prepared import PreparedModel
from neurond.weight_choice import WeightChoice

GIB = 1024 * MIB
VOCABULARY, HIDDEN = 32_000, 2048
MODEL = PreparedModel(
    model_id=ModelId("file:m"),
    kind="safetensors",
    weights=(),
    architecture="LlamaForCausalLM",
    context_tokens=131_072,
    vocab_size=VOCABULARY,
    num_parameters=GIB,
    layers=LayerWeights(GIB - 2 * VOCABULARY * HIDDEN, 2 * GIB),
    hidden_size=HIDDEN,
    num_layers=32,
    num_kv_heads=8,
    head_dim=128,
    eos_token_ids=(2,),
)


def plan(profile: ModelProfile, free_bytes: int, default_kv_bytes: int | None = None) -> MemoryPlan:
    return plan_memory(
        MODEL,
        profile,
        weights=WeightChoice(profile.dtype or "bfloat16"),
        device=DeviceName("cuda-0"),
        kind="cuda",
        free_bytes=free_bytes,
        default_kv_bytes=default_kv_bytes,
    )


def test_sizes_follow_the_headers() -> None:
    assert weights_bytes(MODEL, "float32", "cpu") == 4 * GIB
    assert weights_bytes(MODEL, "bfloat16", "cuda") == 2 * GIB
    assert kv_bytes_per_token(MODEL, "bfloat16") == 2 * 32 * 8 * 128 * 2


def test_packed_weights_are_layers_a_head_the_embedding_and_rotary_tables() -> None:
    tables = 4 * MODEL.head_dim * MODEL.context_tokens
    embedding = 2 * VOCABULARY * HIDDEN
    layers = MODEL.layers.parameters
    for dtype, layer_bits, head_bits in (
        ("bfloat16", 16, 16),
        ("int8", 8.5, 8.5),
        ("int4", 5, 8.5),
    ):
        head = VOCABULARY * HIDDEN * head_bits / 8
        expected = layers * layer_bits / 8 + head + embedding + tables
        assert weights_bytes(MODEL, dtype, "cpu") == int(expected)


def test_packing_takes_a_layer_and_not_the_model() -> None:
    layer = 4 * MODEL.layers.parameters // MODEL.num_layers
    assert layer < packing_bytes(MODEL) < layer + GIB // 4
    script = msgspec.structs.replace(MODEL, num_layers=0)
    assert packing_bytes(script) > 0


def test_int4_leaves_some_matrices_as_int8() -> None:
    layers = msgspec.structs.replace(MODEL.layers, wide_parameters=GIB // 4)
    mixed = msgspec.structs.replace(MODEL, layers=layers)
    more = weights_bytes(mixed, "int4", "cpu") - weights_bytes(MODEL, "int4", "cpu")
    assert more == GIB // 4 * (8.5 - 5) / 8
    assert weights_bytes(mixed, "int8", "cpu") == weights_bytes(MODEL, "int8", "cpu")


def test_what_is_left_open_takes_a_share_of_what_is_free() -> None:
    chosen = plan(ModelProfile(), 18 * GIB + activation_bytes(MODEL, "bfloat16", "cuda", 64))

    assert chosen.kv_cache_bytes == 8 * GIB
    # One block of the cache pads tables and holds no context.
    assert chosen.context_tokens == 8 * GIB // kv_bytes_per_token(MODEL, "bfloat16") - BLOCK_TOKENS


def test_the_default_is_bounded_but_holds_a_useful_context() -> None:
    chosen = plan(ModelProfile(), 30 * GIB, default_kv_bytes=MIB)

    assert chosen.context_tokens == MIN_CONTEXT_TOKENS


def test_many_sequences_do_not_raise_what_a_small_device_must_hold() -> None:
    chosen = plan(ModelProfile(context_tokens=4096), 4 * GIB)

    assert chosen.max_sequences == 64
    assert chosen.context_tokens == 4096
    assert chosen.total_bytes <= 4 * GIB


def test_context_and_concurrency_decide_where_both_are_named() -> None:
    chosen = plan(ModelProfile(context_tokens=4096, max_sequences=4), 30 * GIB)

    tokens = 4 * 4096 + BLOCK_TOKENS
    assert chosen.kv_cache_bytes == tokens * kv_bytes_per_token(MODEL, "bfloat16")
    assert (chosen.context_tokens, chosen.max_sequences) == (4096, 4)


def test_int8_keys_and_values_take_about_half() -> None:
    profile = ModelProfile(kv_dtype="int8", context_tokens=4096, max_sequences=4)
    chosen = plan_memory(
        MODEL,
        profile,
        weights=WeightChoice("bfloat16", "float32"),
        kv_dtype="int8",
        device=DeviceName("cpu"),
        kind="cpu",
        free_bytes=30 * GIB,
    )
    assert (chosen.kv_dtype, chosen.fallback_dtype) == ("int8", None)
    assert chosen.kv_cache_bytes == (4 * 4096 + BLOCK_TOKENS) * kv_bytes_per_token(MODEL, "int8")
    assert chosen.kv_cache_bytes < 0.53 * plan(profile, 30 * GIB).kv_cache_bytes


def test_a_named_cache_is_kept_and_bounds_the_context() -> None:
    chosen = plan(ModelProfile(kv_cache_mb=64), 30 * GIB)

    assert chosen.kv_cache_bytes == 64 * MIB
    assert chosen.context_tokens == 512 - BLOCK_TOKENS


def test_a_profile_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="kv_cache_mb is 64"):
        plan(ModelProfile(kv_cache_mb=64, context_tokens=4096), 30 * GIB)


def test_a_cache_that_holds_no_block_beside_the_one_that_pads_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="one sequence of 16 tokens takes 4 MiB"):
        plan(ModelProfile(kv_cache_mb=3), 30 * GIB)


def test_blocks_are_what_the_devices_backend_wants() -> None:
    assert block_tokens_for("cpu", None) == BLOCK_TOKENS
    assert block_tokens_for("cpu", "torch-reference") == BLOCK_TOKENS
    assert block_tokens_for("cuda", "torch-reference") == BLOCK_TOKENS
    assert block_tokens_for("cuda", "flash-attn-2") == PAGED_BLOCK_TOKENS
    assert block_tokens_for("cuda", "torch-varlen") == PAGED_BLOCK_TOKENS
    assert block_tokens_for("cuda", None) == PAGED_BLOCK_TOKENS


def test_a_step_on_cuda_takes_what_its_tokens_and_its_draws_do() -> None:
    assert activation_bytes(MODEL, "float32", "cpu", 64) == ACTIVATION_BYTES
    few = activation_bytes(MODEL, "bfloat16", "cuda", 1)
    many = activation_bytes(MODEL, "bfloat16", "cuda", 2 * CUDA_STEP_TOKENS)
    assert few >= ACTIVATION_BYTES + CUDA_STEP_TOKENS * HIDDEN * 2
    assert many - few > CUDA_STEP_TOKENS * (2 * HIDDEN + 4 * VOCABULARY)
    assert activation_bytes(MODEL, "float32", "cuda", 1) > few
    chosen = plan(ModelProfile(context_tokens=4096, max_sequences=4), 30 * GIB)
    assert chosen.activation_bytes == activation_bytes(MODEL, "bfloat16", "cuda", 4)
    assert chosen.total_bytes == (
        chosen.weights_bytes + chosen.kv_cache_bytes + chosen.activation_bytes
    )


def test_a_step_on_cuda_has_logits_for_more_rows_than_sequences() -> None:
    few, scored, drafted = (
        activation_bytes(MODEL, "bfloat16", "cuda", rows)
        for rows in (1, SCORED_ROWS, CUDA_DRAFT_ROWS)
    )
    assert few == scored < drafted
    assert activation_bytes(MODEL, "bfloat16", "cuda", 1, speculation="ngram") == drafted
    one = ModelProfile(context_tokens=4096, max_sequences=1)
    assert plan(one, 30 * GIB).activation_bytes == scored
    drafting = msgspec.structs.replace(one, speculation="ngram")
    assert plan(drafting, 30 * GIB).activation_bytes == drafted


def test_a_script_which_has_no_width_takes_what_any_process_does() -> None:
    script = msgspec.structs.replace(
        MODEL,
        kind="script",
        num_parameters=0,
        layers=LayerWeights(0, 0),
        hidden_size=0,
        num_layers=1,
        num_kv_heads=1,
        head_dim=1,
        vocab_size=300,
    )
    few, many = (activation_bytes(script, "bfloat16", "cpu", 1, threads=n) for n in (1, 64))
    assert CPU_ACTIVATION_BYTES <= few <= many < 2 * CPU_ACTIVATION_BYTES


def test_a_model_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(OutOfMemory) as caught:
        plan(ModelProfile(context_tokens=8192, max_sequences=8), 4 * GIB)

    assert str(caught.value) == (
        "cannot load file:m on cuda-0: it needs 10954 MiB (weights 2048 in bfloat16 + KV cache "
        "8194 + activations 712), free are 4096 MiB; lower context_tokens, max_sequences or "
        "kv_cache_mb, or unload another model"
    )


@given(
    st.integers(0, 100 * GIB),
    st.builds(
        ModelProfile,
        dtype=st.sampled_from([None, "float32", "bfloat16"]),
        context_tokens=st.none() | st.integers(1, 200_000),
        max_sequences=st.none() | st.integers(1, 64),
        kv_cache_mb=st.none() | st.integers(1, 100_000),
    ),
    st.none() | st.integers(1, 10 * GIB),
)
def test_a_plan_always_fits_and_never_exceeds_what_was_asked(
    free_bytes: int, profile: ModelProfile, default_kv_bytes: int | None
) -> None:
    try:
        chosen = plan(profile, free_bytes, default_kv_bytes)
    except (OutOfMemory, InvalidRequest):
        return
    assert chosen.total_bytes <= free_bytes
    assert 1 <= chosen.context_tokens <= (profile.context_tokens or MODEL.context_tokens)
    if profile.kv_cache_mb is not None:
        assert chosen.kv_cache_bytes == profile.kv_cache_mb * MIB


def plan_encoder(profile: ModelProfile, free_bytes: int) -> MemoryPlan:
    return plan_memory(
        msgspec.structs.replace(MODEL, capabilities=("embeddings",), context_tokens=512),
        profile,
        weights=WeightChoice(profile.dtype or "float32"),
        device=DeviceName("cpu"),
        kind="cpu",
        free_bytes=free_bytes,
    )


def test_an_encoder_takes_its_weights_and_no_cache() -> None:
    enough = 4 * GIB + ACTIVATION_BYTES
    chosen = plan_encoder(ModelProfile(), enough)
    assert (chosen.dtype, chosen.context_tokens, chosen.kv_cache_bytes) == ("float32", 512, 0)
    assert chosen.total_bytes == enough
    with pytest.raises(OutOfMemory, match="weights 4096 in float32"):
        plan_encoder(ModelProfile(), enough - 1)
    chosen = plan_encoder(ModelProfile(dtype="bfloat16", context_tokens=100), enough)
    assert (chosen.context_tokens, chosen.weights_bytes) == (100, 2 * GIB)


@pytest.mark.parametrize(
    ("field", "value"), [("kv_cache_mb", 1), ("kv_dtype", "int8"), ("max_sequences", 1)]
)
def test_what_no_encoder_can_do_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan_encoder(ModelProfile(**{field: value}), 64 * GIB)
    assert caught.value.param == f"profile.{field}"
