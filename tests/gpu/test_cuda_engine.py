"""The engine on a CUDA device: skipped where there is none."""

import pytest
import torch

from neurond.attention.base import AttentionBatch, AttentionParams
from neurond.attention.flash2 import load_flash2
from neurond.attention.reference import ReferenceBackend
from neurond.engine.device import open_device
from neurond.engine.kv_shape import LayerShape
from neurond.models.loader import load_model
from neurond.models.serving import build_engine, preferred_backend
from tests.fakes.attention_cases import make_case
from tests.fakes.engine_runs import EngineUnderTest, ids
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import TINY_CONFIGS, make_tiny_model

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)
STEPS = {
    "decode": [(1, 5), (1, 300), (1, 257), (1, 1)],
    "mixed": [(1, 300), (9, 20), (40, 300)],
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
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_flash2_agrees_with_the_reference(step, kind):
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    shape = LayerShape(num_kv_heads=2, key_dim=64, value_dim=64)
    case = make_case(STEPS[step], num_heads=8, shape=shape, block_tokens=256, dtype=torch.bfloat16)
    params = KINDS[kind]
    expected = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, params)
    if params.sinks is not None:
        params = AttentionParams(params.scale, sinks=params.sinks.to(CUDA))
    plan = load_flash2().plan(on_cuda(case.batch))
    found = plan.attend(case.query.to(CUDA), *(pages.to(CUDA) for pages in case.pages), params)
    torch.testing.assert_close(found.cpu(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_model_answers_on_cuda_as_on_the_host(name, tmp_path):
    device = open_device("cuda-0", 2, None)
    model = make_tiny_model(name)
    manifest = prepare_model(model, tmp_path / name)
    loaded = load_model(tmp_path / name, manifest, "float32", device, lambda progress: None)
    under_test = EngineUnderTest(build_engine(loaded, 512, 4, 1 << 26, 16))
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
    assert preferred_backend(device, "float32") == "torch-reference"
