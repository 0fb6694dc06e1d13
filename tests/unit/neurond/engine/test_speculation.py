"""With drafts every stream has the tokens that it has without, in fewer steps."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from cortex_core.ids import RequestId
from neurond.engine.engine import Engine
from tests.fakes.fake_runner import FakeRunner
from tests.unit.neurond.engine.engines import alone, new_engine, request, run

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
    output = engine.step()
    assert runner.last_batch is not None
    assert runner.last_batch.num_tokens > 1
    assert [request_id for request_id, _ in output.failed] == [RequestId("r1")]
    assert not output.tokens
    engine.check()
