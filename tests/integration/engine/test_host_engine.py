"""One token, one result: the CPU kernels give the same bits whoever else is in the batch.

Log probabilities are compared exactly. What a prompt's tokens are computed with differs on purpose:
whole, in chunks, from the prefix cache, again after preemption, by one thread or by several.
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import get_args

import pytest

from cortex_core.canonical import SamplingParams
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.engine.host_runner import HostRunner
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import Kernels
from neurond.kernels.memory import KvFormat
from neurond.kernels.packed_file import WeightFormat
from neurond.kernels.packed_model import PackedModel
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from tests.fakes.engine_runs import EngineUnderTest
from tests.fakes.planned_models import PLANNED, make_model
from tests.fakes.tiny_models import VOCAB_SIZE

TOLD = SamplingParams(temperature=0.8, top_p=0.9, logprobs=3, ignore_eos=True)
NEW_TOKENS = 12
CONTEXT = 256
SEVERAL = (2, 3, 7)
"""Numbers of threads, whether there are so many cores or not; some products have fewer panels."""
LONG = 1100
"""Tokens; the kernels take keys in spans of 512."""


@cache
def packed(kernels: Kernels, name: str, weight_format: WeightFormat) -> PackedModel:
    plan = plan_decoder(make_model(PLANNED[name]()))
    assert isinstance(plan, DecoderPlan)
    return pack_to_memory(plan, "0123456789abcdef", weight_format, kernels, lambda _: None)


# Weights, then keys and values.
MADE_OF = [
    ("llama", "int8", "bf16"),
    ("gemma3", "int4", "bf16"),
    ("mistral", "bf16", "bf16"),
    ("gemma2", "bf16", "int8"),
    ("llama-wide", "int8", "int8"),
    ("llama-wide", "int4", "int8"),
]


class Engines:
    """Engines over one model, each with a pool of its own."""

    def __init__(self, kernels: Kernels, model: PackedModel, kv_format: KvFormat) -> None:
        self._kernels = kernels
        self._model = model
        self._kv_format = kv_format
        self._pools = {threads: kernels.pool(threads) for threads in (1, *SEVERAL)}

    def engine(
        self,
        *,
        threads: int = 1,
        num_blocks: int = 128,
        step_tokens: int = 128,
        max_draft_rows: int = 0,
        max_rows: int = 0,
        context: int = CONTEXT,
        **reserved: int,
    ) -> EngineUnderTest:
        """Return a new engine; `reserved` are sizes of the runner that are not the scheduler's."""
        rows = max(8, max_draft_rows, max_rows)
        sizes = {"max_tokens": step_tokens, "max_sequences": 8, "max_rows": rows, **reserved}
        pages = self._kernels.kv_pages(self._model.struct, num_blocks, self._kv_format)
        pool = self._pools[threads]
        runner = HostRunner(self._kernels, pool, self._model, pages, **sizes)
        config = SchedulerConfig(
            num_blocks=num_blocks,
            context_tokens=context,
            block_tokens=BLOCK_TOKENS,
            max_sequences=8,
            step_tokens=step_tokens,
            max_draft_rows=max_draft_rows,
            max_rows=max_rows,
        )
        return EngineUnderTest(Engine(runner, config))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(params=MADE_OF, ids=str)
def engines(request: pytest.FixtureRequest, kernels: Kernels) -> Iterator[Engines]:
    name, weight_format, kv_format = request.param
    made = Engines(kernels, packed(kernels, name, weight_format), kv_format)
    yield made
    made.close()


def prompts(count: int) -> list[list[int]]:
    made = random.Random(5)
    return [[made.randrange(VOCAB_SIZE) for _ in range(20 + 17 * i)] for i in range(count)]


def run(
    engine: EngineUnderTest,
    all_prompts: list[list[int]],
    new_tokens: int = NEW_TOKENS,
    sampling: SamplingParams = TOLD,
) -> list[list[object]]:
    streams = [
        engine.submit(prompt, new_tokens, sampling, seed=index)
        for index, prompt in enumerate(all_prompts)
    ]
    tokens = engine.finish()
    return [list(tokens[stream]) for stream in streams]


def run_alone(engine: EngineUnderTest, prompt: list[int], seed: int) -> list[object]:
    stream = engine.submit(prompt, NEW_TOKENS, TOLD, seed=seed)
    return list(engine.finish()[stream])


def test_a_prompt_is_scored_as_its_tokens_are_when_they_are_chosen(engines: Engines) -> None:
    (prompt,) = prompts(1)
    asked = SamplingParams(temperature=0.0, ignore_eos=True, logprobs=3, scores_prompt=True)
    found = []
    for max_rows in (0, 32):
        engine = engines.engine(max_rows=max_rows)
        stream = engine.submit(prompt, 1, asked)
        tokens = engine.finish()
        found.append([*engine.scores[stream], *tokens[stream]])
    assert found[0] == found[1]
    scores = found[0][:-1]
    assert [token.token_id for token in scores] == prompt[1:]
    assert found[0][-1] == engines.engine().finish_one(prompt, asked)
    for place in (1, 7, len(prompt) - 1):
        forced = SamplingParams(temperature=0.0, logprobs=3, logit_bias={prompt[place]: 100.0})
        chosen = engines.engine().finish_one(prompt[:place], forced)
        assert chosen == scores[place - 1]


def test_bits_do_not_depend_on_company_chunks_or_threads(engines: Engines) -> None:
    asked = prompts(6)
    alone = [run_alone(engines.engine(), prompt, seed) for seed, prompt in enumerate(asked)]
    for threads in SEVERAL:
        assert run(engines.engine(threads=threads), asked) == alone
        assert run(engines.engine(threads=threads, step_tokens=8), asked) == alone


@pytest.mark.parametrize("kv_format", get_args(KvFormat))
@pytest.mark.parametrize("weight_format", get_args(WeightFormat))
def test_bits_of_a_long_context_do_not_depend_on_company(kernels, weight_format, kv_format) -> None:
    """Its keys are of three spans, which threads share while they compute others' tokens.

    Large steps are shared out to teams of threads, as many as there are, or fewer.
    """
    made = Engines(kernels, packed(kernels, "llama-long", weight_format), kv_format)
    asked = [*prompts(4), [*random.Random(6).choices(range(VOCAB_SIZE), k=LONG)]]
    alone = [
        run_alone(made.engine(context=2 * LONG), prompt, seed) for seed, prompt in enumerate(asked)
    ]
    shared = ((2, 128, 0), (3, 100, 12), (2, 600, 0), (3, 500, 0), (3, 300, 0))
    for threads, step_tokens, max_draft_rows in shared:
        engine = made.engine(
            threads=threads,
            step_tokens=step_tokens,
            max_draft_rows=max_draft_rows,
            context=2 * LONG,
        )
        assert run(engine, asked) == alone
        assert run(engine, asked) == alone  # most of it from the prefix cache
        assert engine.cached_tokens[-1] >= LONG - BLOCK_TOKENS
    made.close()


def test_bits_do_not_depend_on_the_prefix_cache(engines: Engines) -> None:
    engine = engines.engine()
    asked = prompts(6)[5:]
    first, second = run(engine, asked), run(engine, asked)
    assert engine.cached_tokens[-1] >= 2 * BLOCK_TOKENS
    assert first == second


def test_bits_do_not_depend_on_preemption(engines: Engines) -> None:
    asked = [prompt[:30] for prompt in prompts(6)[1:]]  # 2 blocks each, 5 in the end
    roomy, tight = engines.engine(), engines.engine(num_blocks=14)
    assert run(roomy, asked, 40) == run(tight, asked, 40)
    assert tight.engine.scheduler.num_preemptions > 0
    assert roomy.engine.scheduler.num_preemptions == 0


# Few tokens, so that those of before come again: sampled ones too.
FEW = dict.fromkeys((40, 41), 30.0)
DRAFTED = {
    "greedy": SamplingParams(temperature=0.0, logit_bias=FEW, logprobs=3, ignore_eos=True),
    "sampled": SamplingParams(temperature=0.9, logit_bias=FEW, logprobs=3, ignore_eos=True),
    "filtered": SamplingParams(
        temperature=0.5, top_p=0.9, min_p=0.01, logit_bias=FEW, logprobs=0, ignore_eos=True
    ),
    "penalised": SamplingParams(
        temperature=0.9, repetition_penalty=1.3, frequency_penalty=0.2, logit_bias=FEW, logprobs=2
    ),
}


@pytest.mark.parametrize("name", DRAFTED)
def test_bits_do_not_depend_on_drafts(engines: Engines, name: str) -> None:
    sampling = DRAFTED[name]
    for num_prompts, max_draft_rows in ((1, 6), (3, 12)):
        asked = [prompt + prompt[:8] for prompt in prompts(num_prompts)]
        plain = run(engines.engine(), asked, 60, sampling)
        engine = engines.engine(threads=2, max_draft_rows=max_draft_rows)
        assert run(engine, asked, 60, sampling) == plain
        assert engine.engine.scheduler.num_accepted_tokens > 0


def test_bits_do_not_depend_on_drafts_with_preemption_and_late_company(engines: Engines) -> None:
    sampling = DRAFTED["sampled"]
    asked = [prompt[:30] for prompt in prompts(5)[1:]]
    roomy = run(engines.engine(), asked, 60, sampling)
    tight = engines.engine(num_blocks=14, max_draft_rows=12)
    streams = [tight.submit(asked[0], 60, sampling, seed=0)]
    tokens: dict[int, list[object]] = {}
    for steps in range(1000):
        if steps in (4, 8, 12):
            streams.append(tight.submit(asked[steps // 4], 60, sampling, seed=steps // 4))
        for stream, token, _ in tight.engine.step().tokens:
            tokens.setdefault(stream, []).append(token)
    assert [tokens[stream] for stream in streams] == roomy
    assert tight.engine.scheduler.num_preemptions > 0
    assert tight.engine.scheduler.num_accepted_tokens > 0


@pytest.mark.parametrize("reserved", [{"max_tokens": 36}, {"max_sequences": 1}])
def test_a_step_beyond_what_memory_is_reserved_for_is_refused(
    engines: Engines, reserved: dict[str, int]
) -> None:
    """The kernels would write beyond it; what fits is computed before and after."""
    first, second = prompts(2)
    engine = engines.engine(**reserved)
    alone = run_alone(engine, first, 0)
    for prompt in (first, second):
        engine.submit(prompt, NEW_TOKENS)
    failed = engine.engine.step().failed
    assert [error.code for _, error in failed] == ["internal_error", "internal_error"]
    assert "memory is reserved for" in failed[0][1].message
    assert run_alone(engine, first, 0) == alone
