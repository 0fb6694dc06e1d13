"""What the kernels say that steps take, and what is planned before they can be asked."""

from collections.abc import Iterator

import pytest

from cortex_core.errors import OutOfMemory
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import Dtype, ModelProfile
from cortex_core.sizes import MIB
from neurond.engine.host_sizes import StepBounds, embed_bytes, step_bytes
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.packed_file import (
    LAYER_AND_HEAD,
    PackedDecoder,
    PackedLayer,
    PackedLinear,
    PackedRope,
    WeightFormat,
)
from neurond.kernels.packed_model import struct_of
from neurond.kernels.variants import VARIANTS, NoKernels, load_kernels
from neurond.memory_plan import (
    CPU_ACTIVATION_BYTES,
    EMBED_TOKENS,
    activation_bytes,
    block_tokens_for,
    packed_bytes,
    plan_memory,
)
from neurond.models.host_serving import activation_bytes as exact_bytes
from neurond.sources.layer_weights import LayerWeights
from neurond.sources.prepared import PreparedModel
from neurond.weight_choice import WeightChoice

MANY_THREADS = 64
DTYPES: dict[WeightFormat, Dtype] = {"bf16": "bfloat16", "int8": "int8", "int4": "int4"}
# Layers, hidden, intermediate, heads, K/V heads, dimensions of a head, vocabulary.
Sizes = tuple[int, int, int, int, int, int, int]
QWEN3_8B: Sizes = (36, 4096, 12288, 32, 8, 128, 151_936)
PUBLISHED: dict[str, Sizes] = {
    "smollm2-135m": (30, 576, 1536, 9, 3, 64, 49_152),
    "gemma-3-270m": (18, 640, 2048, 4, 1, 256, 262_144),
    "gemma-3-1b": (26, 1152, 6912, 4, 1, 256, 262_144),
    "llama-3-8b": (32, 4096, 14336, 32, 8, 128, 128_256),
    "qwen3-8b": QWEN3_8B,
    "llama-3-70b": (80, 8192, 28672, 64, 8, 128, 128_256),
}


def decoder(sizes: Sizes, weight_format: WeightFormat = "int8") -> PackedDecoder:
    layers, hidden, intermediate, heads, kv_heads, dim, vocabulary = sizes
    of_layers, of_head = LAYER_AND_HEAD[weight_format]
    layer = PackedLayer(
        input_norm=0,
        qkv=PackedLinear(of_layers, (heads + 2 * kv_heads) * dim, hidden, 0),
        o=PackedLinear(of_layers, hidden, heads * dim, 0),
        pre_ffn_norm=0,
        gate_up=PackedLinear(of_layers, 2 * intermediate, hidden, 0),
        down=PackedLinear(of_layers, hidden, intermediate, 0),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        rope=0,
        activation="silu",
        scale=0.1,
    )
    return PackedDecoder(
        weights_hash="00ff",
        weight_format=weight_format,
        variant="portable",
        packing=0,
        plan_source="",
        vocab_size=vocabulary,
        hidden=hidden,
        norm_eps=1e-5,
        embedding_scale=1.0,
        embedding=0,
        final_norm=0,
        head=PackedLinear(of_head, vocabulary, hidden, 0),
        layers=(layer,) * layers,
        ropes=(PackedRope(EMBED_TOKENS, dim, 0, 0),),
    )


def manifest(sizes: Sizes) -> PreparedModel:
    layers, hidden, intermediate, heads, kv_heads, dim, vocabulary = sizes
    matrices = layers * hidden * (3 * intermediate + 2 * (heads + kv_heads) * dim)
    return PreparedModel(
        model_id=ModelId("file:m"),
        kind="safetensors",
        weights=(),
        architecture="LlamaForCausalLM",
        context_tokens=40_960,
        vocab_size=vocabulary,
        num_parameters=matrices + 2 * vocabulary * hidden,
        layers=LayerWeights(matrices, 2 * matrices),
        hidden_size=hidden,
        num_layers=layers,
        num_kv_heads=kv_heads,
        head_dim=dim,
        eos_token_ids=(2,),
    )


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    found = load_kernels(request.param)
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    return found


@pytest.fixture(scope="module", params=[1, 2, MANY_THREADS])
def pool(request: pytest.FixtureRequest, kernels: Kernels) -> Iterator[Pool]:
    with kernels.pool(request.param) as opened:
        yield opened


def exact(
    kernels: Kernels, pool: Pool, sizes: Sizes, weight_format: WeightFormat, max_sequences: int
) -> int:
    return exact_bytes(
        decoder(sizes, weight_format),
        kernels,
        pool,
        context_tokens=8192,
        max_sequences=max_sequences,
        speculation=None,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_planned_is_what_the_kernels_take_and_not_much_more(
    kernels: Kernels, pool: Pool, name: str
) -> None:
    sizes = PUBLISHED[name]
    for weight_format, dtype in DTYPES.items():
        for max_sequences in (1, 64, 600):
            planned = activation_bytes(
                manifest(sizes), dtype, "cpu", max_sequences, threads=pool.threads
            )
            taken = exact(kernels, pool, sizes, weight_format, max_sequences)
            assert taken <= planned, (weight_format, max_sequences)
            # Tiles take much more for each thread than lanes do, and are planned for.
            lanes = 0 if kernels.variant == "amx" else 2 * pool.threads * 18 * 1024 * sizes[5]
            assert planned - lanes < 1.4 * taken, (weight_format, max_sequences)


def test_blocks_are_planned_as_large_as_the_kernels_have_them() -> None:
    assert block_tokens_for("cpu", None) == BLOCK_TOKENS


def test_each_thread_has_scratch_for_attention_and_for_choosing_tokens(kernels: Kernels) -> None:
    model = struct_of(decoder(QWEN3_8B))
    bounds = StepBounds(512, 64, 64)
    with kernels.pool(1) as one, kernels.pool(MANY_THREADS) as many:
        scratch = kernels.scratch_bytes(model, one, *bounds)
        draws = kernels.sampler_bytes(one, model.vocab_size)
        assert kernels.sampler_bytes(many, model.vocab_size) == MANY_THREADS * draws
        more = step_bytes(kernels, many, model, bounds) - step_bytes(kernels, one, model, bounds)
        assert more > (MANY_THREADS - 1) * (draws + MIB // 2)
        logits = 4 * 64 * model.vocab_size
        assert step_bytes(kernels, one, model, bounds) == scratch + logits + draws
        vectors = embed_bytes(kernels, one, model, EMBED_TOKENS)
    pages = 2 * 36 * 8 * 128 * 2 * EMBED_TOKENS
    assert vectors > pages + EMBED_TOKENS * (4 * 4096 + scratch // 512 * 0.9)


def test_eight_billion_weights_on_many_threads_need_more_than_a_guess_for_any_model() -> None:
    model, mib = manifest(QWEN3_8B), 1 / MIB
    on_many = activation_bytes(model, "int8", "cpu", 64, threads=MANY_THREADS)
    on_two = activation_bytes(model, "int8", "cpu", 64, threads=2)
    kv, logits = 288, 64 * 4 * 151_936 * mib
    assert 850 < on_two * mib < 1150
    assert on_two * mib > CPU_ACTIVATION_BYTES * mib + kv + logits
    assert 1200 < on_many * mib < 1650

    def planned(free_bytes: int) -> int:
        return plan_memory(
            model,
            ModelProfile(kv_cache_mb=1024, context_tokens=4096),
            weights=WeightChoice("int8", "float32"),
            kv_dtype="bfloat16",
            device=DeviceName("cpu"),
            kind="cpu",
            free_bytes=free_bytes,
            threads=MANY_THREADS,
        ).total_bytes

    needed = packed_bytes(model, "int8") + 1024 * MIB + on_many
    assert planned(needed) == needed
    with pytest.raises(OutOfMemory, match=rf"activations {-(-on_many // MIB)}\)"):
        planned(needed - 1)
