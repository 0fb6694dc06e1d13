"""With drafts every stream has the tokens that it has without, in fewer steps."""

from bisect import bisect_right
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from cortex_core.ids import RequestId
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.blocks import blocks_for
from neurond.engine.config import SchedulerConfig
from neurond.engine.draft_pace import FEW_ROWS
from neurond.engine.engine import Engine
from tests.fakes.fake_runner import FakeRunner
from tests.unit.neurond.engine.engines import BLOCK_TOKENS, alone, new_engine, request, run

SAMPLINGS = (SamplingParams(), SamplingParams(frequency_penalty=0.5, repetition_penalty=1.1))


def copying(**sizes: int) -> tuple[Engine, FakeRunner]:
    """Return an engine whose model says one token again and again."""
    return new_engine(vocab_size=1, **{"max_draft_rows": 6, **sizes})


@given(
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20), min_size=1, max_size=3),
    max_tokens=st.integers(1, 30),
    max_draft_rows=st.integers(2, 12),
    sampling=st.sampled_from(SAMPLINGS),
)
def test_tokens_do_not_depend_on_drafts(prompts, max_tokens, max_draft_rows, sampling) -> None:
    engine, runner = new_engine(vocab_size=2, max_draft_rows=max_draft_rows)
    asked = [
        request(stream, prompt, max_tokens=max_tokens, sampling=sampling)
        for stream, prompt in enumerate(prompts)
    ]
    for each in asked:
        engine.add(each)
    told = run(engine)
    for stream, each in enumerate(asked):
        assert told.tokens[stream] == alone(each, vocab_size=2)
    scheduler = engine.scheduler
    assert scheduler.num_accepted_tokens <= scheduler.num_drafted_tokens
    new_tokens = sum(map(len, told.tokens.values()))
    prompt_tokens = runner.num_computed_tokens - new_tokens
    assert prompt_tokens <= sum(map(len, prompts)) + scheduler.num_drafted_tokens


def test_what_is_guessed_right_costs_no_step() -> None:
    engine, runner = copying()
    engine.add(request(1, [0] * 5, max_tokens=40))
    told = run(engine)
    assert len(told.tokens[1]) == 40
    # One step for the prompt, one with 3 drafts, then 6 tokens in each.
    assert runner.num_steps == 1 + 1 + 6
    assert engine.scheduler.num_accepted_tokens == 40 - runner.num_steps


def test_each_of_several_drafts_less() -> None:
    engine, runner = copying(step_tokens=32)
    for stream in range(3):
        engine.add(request(stream, [stream] * 2 + [0] * 4, max_tokens=9))
    run(engine)
    assert runner.num_steps == 1 + 4


@pytest.mark.parametrize(
    ("cost", "least", "most"), [(lambda _: 1.0, 0.9, 1.0), (lambda rows: rows**2, 0.05, 0.2)]
)
def test_where_rows_cost_more_than_they_bring_most_steps_have_few(cost, least, most) -> None:
    engine, runner = copying(
        max_draft_rows=32, step_tokens=32, num_blocks=1200, context_tokens=1024
    )
    for stream in range(4):
        engine.add(request(stream, [stream] * 2 + [0] * 4, max_tokens=1000))
    widths = []
    while engine.has_work():
        before = runner.num_computed_tokens
        engine.step()
        widths.append(runner.num_computed_tokens - before)
        engine.took(cost(widths[-1]))
    settled = widths[len(widths) // 2 : -2]
    assert least < sum(width > FEW_ROWS for width in settled) / len(settled) < most


def test_too_many_draft_nothing() -> None:
    engine, _ = copying()
    for stream in range(4):
        engine.add(request(stream, [stream] * 2 + [0] * 4, max_tokens=9))
    run(engine)
    assert engine.scheduler.num_drafted_tokens == 0


def test_a_stop_token_among_the_drafts_ends_the_stream() -> None:
    engine, _ = copying()
    sampling = SamplingParams(stop_token_ids=(0,))
    engine.add(request(1, [0] * 5, max_tokens=20))
    engine.add(request(2, [0] * 6, max_tokens=20, sampling=sampling))
    told = run(engine)
    assert (told.tokens[2], told.reasons[2]) == ([0], "stop")
    assert (len(told.tokens[1]), told.reasons[1]) == (20, "length")


def test_nothing_is_drafted_beside_a_prompt() -> None:
    engine, runner = copying(step_tokens=8)
    engine.add(request(1, [0] * 5, max_tokens=60))
    engine.step()
    engine.add(request(2, range(100, 140)))
    while 2 not in {stream for stream, _, _ in engine.step().tokens}:
        assert runner.last_batch is not None
        assert runner.last_batch.num_decodes == 1
    assert engine.scheduler.num_drafted_tokens == 0


def test_drafts_put_nobody_out() -> None:
    engine, _ = copying(num_blocks=7)
    for stream in (1, 2):
        engine.add(request(stream, [stream] * 2 + [0] * 4, max_tokens=6))  # 12 tokens: 3 blocks
    run(engine)
    assert engine.scheduler.num_accepted_tokens > 0
    assert engine.scheduler.num_preemptions == 0


def test_a_failing_row_fails_its_request_with_drafts_too() -> None:
    engine, runner = copying()
    engine.add(request(1, [0] * 5, max_tokens=20))
    engine.step()
    runner.failing_streams[1] = ErrorInfo("internal_error", "cannot sample: NaN")
    engine.step()
    assert runner.last_batch is not None
    assert runner.last_batch.num_tokens > 1
    told = run(engine)
    assert told.failed == {RequestId("r1"): "internal_error"}
    assert not told.tokens


class OverflowingRunner(FakeRunner):
    """What it computes for drafted tokens is not finite.

    A query fails that has such a key or value in a block of its own, seen or not: kernels multiply
    what they mask. The first place of a block that is written to clears it.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__(BLOCK_TOKENS, vocab_size)
        self._broken: set[int] = set()
        self.num_failed_rows = 0

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        chosen = super().execute(batch)
        drafted = {
            flat for flat, row in zip(batch.sample_rows, batch.rows, strict=True) if row.drafts
        }
        for flat, slot in enumerate(batch.slot_mapping):
            if slot % BLOCK_TOKENS == 0:
                self._broken -= {*range(slot, slot + BLOCK_TOKENS)}
            (self._broken.add if flat in drafted else self._broken.discard)(slot)
        return [
            self._unless_broken(token, batch, flat)
            for token, flat in zip(chosen, batch.sample_rows, strict=True)
        ]

    def _unless_broken(
        self, token: SampledToken | ErrorInfo, batch: ScheduledBatch, flat: int
    ) -> SampledToken | ErrorInfo:
        index = bisect_right(batch.cu_seqlens_q, flat) - 1
        num_blocks = blocks_for(batch.seq_lens_k[index], BLOCK_TOKENS)
        read = {
            block * BLOCK_TOKENS + offset
            for block in batch.block_tables[index][:num_blocks]
            for offset in range(BLOCK_TOKENS)
        }
        if not read & self._broken:
            return token
        self.num_failed_rows += 1
        return ErrorInfo("internal_error", "cannot sample: NaN")


@given(
    prompt=st.lists(st.integers(0, 1), min_size=3, max_size=20),
    max_tokens=st.integers(1, 20),
    vocab_size=st.integers(1, 2),
)
def test_a_draft_that_is_not_finite_harms_nothing(prompt, max_tokens, vocab_size) -> None:
    runner = OverflowingRunner(vocab_size)
    config = SchedulerConfig(
        num_blocks=64,
        context_tokens=128,
        block_tokens=BLOCK_TOKENS,
        max_sequences=4,
        step_tokens=16,
        max_draft_rows=12,
    )
    engine = Engine(runner, config)
    asked = [request(stream, [stream + 2, *prompt], max_tokens=max_tokens) for stream in range(2)]
    for each in asked:
        engine.add(each)
    told = run(engine)
    assert not told.failed
    for stream, each in enumerate(asked):
        assert told.tokens[stream] == alone(each, vocab_size=vocab_size)
    assert (runner.num_failed_rows > 0) == (engine.scheduler.num_drafted_tokens > 0)
    assert engine.scheduler.num_accepted_tokens == 0
    assert engine.scheduler.num_preemptions == 0
