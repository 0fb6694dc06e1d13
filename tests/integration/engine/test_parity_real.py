"""Real checkpoints answer as transformers does with the same files."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from neurond.models.loader import LoadedModel, load_model
from tests.fakes.engine_runs import ids, make_engine
from tests.fakes.model_cache import GEMMA3, SMOLLM2, real_model
from tests.integration.engine.conftest import Pair

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

MAX_TOKENS = 20
SMOLLM2_PROMPTS = [
    # <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n
    [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198],
    [504, 2298, 14178, 8767],
    list(range(1000, 1300, 7)),
]
GEMMA3_PROMPTS = [[2, 818, 5279, 529, 7001, 563], [2, 236743], [2, *range(5000, 9000, 37)]]


def load_pair(model_id, cpu) -> Pair:
    folder, manifest = real_model(model_id)
    loaded = load_model(folder, manifest, "float32", cpu, lambda progress: None)
    reference = AutoModelForCausalLM.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder),  # else the GGUF is read once more, slowly
        gguf_file=manifest.weights[0].name,
        dtype=torch.float32,
        attn_implementation="sdpa",
        quantization_config=GgufConfig(dequantize=True),
    )
    return Pair(reference.eval(), loaded)


@pytest.fixture(scope="module")
def smollm2(cpu) -> Pair:
    return load_pair(SMOLLM2, cpu)


@pytest.fixture(scope="module")
def gemma3(cpu) -> Pair:
    return load_pair(GEMMA3, cpu)


def assert_same_weights(reference: torch.nn.Module, loaded: LoadedModel) -> None:
    for ours, theirs in (
        (loaded.model.named_parameters(), reference.named_parameters()),
        (loaded.model.named_buffers(), reference.named_buffers()),
    ):
        found, expected = dict(ours), dict(theirs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    embedding = loaded.model.get_input_embeddings().weight
    assert loaded.model.get_output_embeddings().weight is embedding


def assert_same_text(pair: Pair, prompts: list[list[int]]) -> None:
    expected = [pair.generate(prompt, MAX_TOKENS) for prompt in prompts]
    assert make_engine(pair.loaded).generate(prompts[0], MAX_TOKENS) == expected[0]
    together = make_engine(pair.loaded, step_tokens=24)
    streams = [together.submit(prompt, MAX_TOKENS) for prompt in prompts]
    tokens = together.finish()
    assert [ids(tokens[stream]) for stream in streams] == expected


def test_smollm2_weights_are_those_that_transformers_reads(smollm2):
    assert_same_weights(smollm2.reference, smollm2.loaded)


def test_smollm2_says_what_it_says_in_transformers(smollm2):
    assert_same_text(smollm2, SMOLLM2_PROMPTS)


def test_gemma3_weights_are_those_that_transformers_reads(gemma3):
    assert_same_weights(gemma3.reference, gemma3.loaded)


def test_gemma3_says_what_it_says_in_transformers(gemma3):
    assert_same_text(gemma3, GEMMA3_PROMPTS)
