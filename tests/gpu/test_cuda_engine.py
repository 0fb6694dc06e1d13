"""The engine on a CUDA device: skipped where there is none."""

import pytest
import torch

from neurond.attention.base import AttentionBackend, AttentionBatch, AttentionParams
from neurond.attention.flash2 import load_flash2
from neurond.attention.reference import ReferenceBackend
from neurond.attention.selection import FLASH_MIN_MAJOR
from neurond.attention.varlen import TorchVarlenBackend
from neurond.engine.device import open_device
from neurond.engine.kv_shape import LayerShape
from neurond.models.loader import load_model
from neurond.models.torch_serving import TorchServing, load_paged_decodes, preferred_backend
from tests.fakes.attention_cases import make_case
from tests.fakes.engine_runs import EngineUnderTest, ids
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import TINY_CONFIGS, make_tiny_model

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)
STEPS = {
    "decode": [(1, 5), (1, 300), (1, 257), (1, 1)],
    "mixed": [(1, 300), (9, 20), (40, 300)],
    "long": [(1, 9000), (1, 33_000), (300, 5000)],
    "two-way": [(1, 300), (9, 20), (256, 5000), (40, 300)],
}
KINDS = {
    "plain": AttentionParams(0.1),
    "window": AttentionParams(0.1, window=60),
    "softcap": AttentionParams(0.1, softcap=5.0),
    "sinks": AttentionParams(0.1, sinks=torch.linspace(-2, 3, 8)),
}


def on_cuda(batch: AttentionBatch) -> AttentionBatch:
    return AttentionBatch(
        batch.cu_seqlens_q.to(CUDA),
        batch.seq_lens_k.to(CUDA),
        batch.block_tables.to(CUDA),
        batch.query_lens,
        batch.kv_lens,
        batch.num_decodes,
        batch.max_seqlen_q,
        batch.max_seqlen_k,
        batch.block_tokens,
        batch.two_way,
    )


def backend_named(name: str) -> AttentionBackend:
    if name == "torch-reference":
        return ReferenceBackend()
    if name == "torch-varlen":
        return TorchVarlenBackend()
    if name == "triton":
        return load_paged_decodes(ReferenceBackend())
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    return load_flash2()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("backend", ["flash-attn-2", "triton", "torch-varlen", "torch-reference"])
def test_a_backend_agrees_with_the_host(backend, step, kind, head_dim, dtype):
    params = KINDS[kind]
    if backend == "torch-varlen" and params.softcap is not None:
        pytest.skip("torch's flash-attn has no softcap")
    if (
        backend in ("flash-attn-2", "torch-varlen")
        and torch.cuda.get_device_capability()[0] < FLASH_MIN_MAJOR
    ):
        pytest.skip("this device is too old for flash-attn")
    shape = LayerShape(num_kv_heads=2, key_dim=head_dim, value_dim=head_dim)
    two_way = (False, False, True, False) if step == "two-way" else ()
    case = make_case(
        STEPS[step],
        num_heads=8,
        shape=shape,
        block_tokens=256,
        dtype=dtype,
        two_way=two_way,
    )
    expected = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, params)
    if params.sinks is not None:
        params = AttentionParams(params.scale, sinks=params.sinks.to(CUDA))
    plan = backend_named(backend).plan(on_cuda(case.batch))
    found = plan.attend(case.query.to(CUDA), *(pages.to(CUDA) for pages in case.pages), params)
    torch.testing.assert_close(found.cpu(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", ["flash-attn-2", "triton"])
def test_a_decode_has_the_same_bits_beside_others_and_beside_a_prompt(name):
    backend = backend_named(name)
    shape = LayerShape(num_kv_heads=2, key_dim=128, value_dim=128)
    lens = [(1, 5000), (1, 70), (40, 290)]
    case = make_case(lens, num_heads=8, shape=shape, block_tokens=256, dtype=torch.bfloat16)
    batch, query = on_cuda(case.batch), case.query.to(CUDA)
    pages = [pages.to(CUDA) for pages in case.pages]
    mixed = backend.plan(batch).attend(query, *pages, KINDS["plain"])
    alone = backend.plan(batch.decodes()).attend(query[:2], *pages, KINDS["plain"])
    assert torch.equal(mixed[:2], alone)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_model_answers_on_cuda_as_on_the_host(name, tmp_path):
    device = open_device("cuda-0", 2, None)
    model = make_tiny_model(name)
    manifest = prepare_model(model, tmp_path / name)
    loaded = load_model(tmp_path / name, manifest, "float32", device, lambda progress: None)
    sizes = {"context_tokens": 512, "max_sequences": 4, "kv_cache_bytes": 1 << 26}
    under_test = EngineUnderTest(TorchServing(loaded, **sizes, block_tokens=16).new_engine())
    prompts = [[5, 6, 7, 8, 9], list(range(40))]
    streams = [under_test.submit(prompt, 8) for prompt in prompts]
    tokens = under_test.finish()
    for stream, prompt in zip(streams, prompts, strict=True):
        expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=8)
        assert ids(tokens[stream]) == expected[0, len(prompt) :].tolist()
    info = device.memory_info()
    assert 0 < info.free_bytes < info.total_bytes


def test_the_backend_follows_the_device():
    device = open_device("cuda-0", 2, None)
    assert preferred_backend(device, torch.float32).name in ("triton", "torch-reference")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_products_of_experts_agree_with_torch(dtype):
    pytest.importorskip("triton", reason="Triton is not installed")
    from neurond.models.token_experts import agrees

    if dtype == torch.bfloat16 and torch.cuda.get_device_capability()[0] < FLASH_MIN_MAJOR:
        pytest.skip("this device has no bfloat16")
    assert agrees(dtype, CUDA)
