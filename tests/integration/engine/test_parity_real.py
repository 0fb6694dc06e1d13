"""Real checkpoints answer as transformers does with the same files."""

from dataclasses import dataclass

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from neurond.engine.blocks import blocks_for
from neurond.models.loader import load_model
from tests.fakes.engine_runs import EngineUnderTest, ids, make_engine
from tests.fakes.model_cache import GEMMA3, SMOLLM2, real_model
from tests.integration.engine.conftest import Pair

pytestmark = pytest.mark.model

MAX_TOKENS = 20
PROMPTS = {
    SMOLLM2: [
        # <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n
        [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198],
        [504, 2298, 14178, 8767],
        list(range(1000, 1300, 7)),
    ],
    GEMMA3: [[2, 818, 5279, 529, 7001, 563], [2, 236743], [2, *range(5000, 9000, 37)]],
}
FEW_TOKENS = 8
LONG_PROMPT = list(range(5000, 23_000, 30))


@dataclass(frozen=True)
class Case:
    """A model, prompts for it, and what transformers says to each."""

    pair: Pair
    prompts: list[list[int]]
    answers: list[list[int]]


@pytest.fixture(scope="module", params=PROMPTS)
def case(request, cpu) -> Case:
    folder, manifest = real_model(request.param)
    loaded = load_model(folder, manifest, "float32", cpu, lambda progress: None)
    reference = AutoModelForCausalLM.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder),  # else the GGUF is read once more, slowly
        gguf_file=manifest.weights[0].name,
        dtype=torch.float32,
        attn_implementation="sdpa",
        quantization_config=GgufConfig(dequantize=True),
    )
    pair, prompts = Pair(reference.eval(), loaded), PROMPTS[request.param]
    return Case(pair, prompts, [pair.generate(prompt, MAX_TOKENS) for prompt in prompts])


def answers(engine: EngineUnderTest, prompts: list[list[int]]) -> list[list[int]]:
    """Return what an engine says to all of `prompts` at once."""
    streams = [engine.submit(prompt, MAX_TOKENS) for prompt in prompts]
    tokens = engine.finish()
    return [ids(tokens[stream]) for stream in streams]


def test_weights_are_those_that_transformers_reads(case):
    reference, model = case.pair.reference, case.pair.loaded.model
    for ours, theirs in (
        (model.named_parameters(), reference.named_parameters()),
        (model.named_buffers(), reference.named_buffers()),
    ):
        found, expected = dict(ours), dict(theirs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding


def test_it_says_what_it_says_in_transformers(case):
    alone = make_engine(case.pair.loaded).generate(case.prompts[0], MAX_TOKENS)
    assert alone == case.answers[0]
    assert answers(make_engine(case.pair.loaded, step_tokens=24), case.prompts) == case.answers


def test_a_cached_prefix_changes_nothing(case):
    engine = make_engine(case.pair.loaded)
    shared = case.prompts[2]
    assert engine.generate(shared, MAX_TOKENS) == case.answers[2]
    longer = [*shared, *case.answers[2][:5]]
    assert engine.generate(longer, MAX_TOKENS - 5) == case.answers[2][5:]
    assert engine.cached_tokens[0] == 0
    assert engine.cached_tokens[1] >= 40


def test_preemption_changes_nothing(case):
    prompts = [case.prompts[2], case.prompts[0]]
    whole = sum(blocks_for(len(prompt) + MAX_TOKENS - 1, 8) for prompt in prompts)
    engine = make_engine(case.pair.loaded, num_blocks=whole - 1, block_tokens=8)
    assert answers(engine, prompts) == [case.answers[2], case.answers[0]]
    assert engine.engine.scheduler.num_preemptions > 0


def test_a_prompt_beyond_the_window(case):
    window = getattr(case.pair.reference.config, "sliding_window", None) or 0
    assert len(LONG_PROMPT) > window + 32
    expected = case.pair.generate(LONG_PROMPT, FEW_TOKENS)
    engine = make_engine(case.pair.loaded, context_tokens=1024, step_tokens=200)
    for _ in range(2):
        assert engine.generate(LONG_PROMPT, FEW_TOKENS) == expected
    assert engine.cached_tokens[-1] >= window
