"""What the engine itself costs per step: scheduling, batch assembly and bookkeeping, no model."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine, EngineRequest

PROMPT_TOKENS = 512
CONTEXT_TOKENS = 1 << 20


class InstantRunner:
    """Chooses the same token for every row."""

    def __init__(self) -> None:
        self._token = SampledToken(5)

    def execute(self, batch: ScheduledBatch) -> list[SampledToken]:
        return [self._token] * len(batch.rows)


def decoding_engine(num_sequences: int) -> Engine:
    """Return an engine whose sequences are all past their prompts."""
    config = SchedulerConfig(
        num_blocks=CONTEXT_TOKENS // 16,
        context_tokens=CONTEXT_TOKENS,
        max_sequences=num_sequences,
        step_tokens=2048,
    )
    engine = Engine(InstantRunner(), config)
    for stream in range(num_sequences):
        prompt = range(stream * PROMPT_TOKENS, (stream + 1) * PROMPT_TOKENS)
        request_id = RequestId(f"bench-{stream}")
        engine.add(
            EngineRequest(request_id, stream, prompt, SamplingParams(), CONTEXT_TOKENS, seed=1)
        )
    while len(engine.step().tokens) < num_sequences:
        pass
    return engine


@pytest.mark.parametrize("num_sequences", [1, 16, 64, 256])
def test_decode_step(benchmark: BenchmarkFixture, num_sequences: int) -> None:
    """One token for each of so many sequences."""
    engine = decoding_engine(num_sequences)
    output = benchmark.pedantic(engine.step, rounds=200, iterations=1, warmup_rounds=10)
    assert len(output.tokens) == num_sequences


@pytest.mark.parametrize("prompt_tokens", [512, 8192])
def test_admit_a_prompt_that_is_cached(benchmark: BenchmarkFixture, prompt_tokens: int) -> None:
    """Add a request, find its prompt in the prefix cache, and compute its only token."""
    engine = decoding_engine(1)
    engine.cancel(RequestId("bench-0"))
    prompt = range(prompt_tokens)

    def answer() -> int:
        engine.add(EngineRequest(RequestId("r"), 0, prompt, SamplingParams(), 1, seed=1))
        steps = 0
        while engine.has_work():
            engine.step()
            steps += 1
        return steps

    answer()
    assert benchmark(answer) == 1
