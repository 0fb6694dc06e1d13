"""What the actor's loop sees of an engine: requests in, tokens and ends out."""

from dataclasses import replace

import pytest

from cortex_core.canonical import SamplingParams
from cortex_core.errors import (
    ContextLengthExceeded,
    ErrorInfo,
    InvalidRequest,
    OutOfMemory,
    QueueFull,
)
from cortex_core.ids import RequestId
from neurond.engine.engine import Admissions, EngineRequest
from tests.fakes.counting_grammar import Countdown
from tests.unit.neurond.engine.engines import Told, alone, new_engine, request, run

BAD_LOGITS = ErrorInfo("internal_error", "cannot sample: logits are not finite")


def test_cancel_ends_every_choice_in_the_next_step() -> None:
    engine, runner = new_engine()
    engine.add(request(1, range(10), n=2, max_tokens=50))
    told = Told()
    for _ in range(4):
        told.take(engine.step())
    engine.cancel(RequestId("r1"))
    assert engine.scheduler.num_available_blocks == 64
    steps = runner.num_steps
    told.take(engine.step())
    assert told.reasons == {1: "cancelled", 2: "cancelled"}
    assert runner.num_steps == steps
    assert not engine.has_work()


def test_cancel_of_a_waiting_request_is_told_too() -> None:
    engine, _ = new_engine(max_sequences=1)
    engine.add(request(1, range(5)))
    engine.add(request(2, range(5)))
    engine.step()
    engine.cancel(RequestId("r2"))
    assert engine.step().finished == [(2, "cancelled")]


def test_admission_is_told_before_the_first_chunk_is_computed() -> None:
    engine, runner = new_engine()
    asked = request(1, range(10))
    engine.add(asked)
    heard: list[tuple[Admissions, int]] = []

    def hear(admitted: Admissions) -> None:
        heard.append((admitted, runner.num_steps))

    output = engine.step(hear)
    engine.step(hear)
    assert heard == [([(asked.request_id, 0)], 0)]
    assert output.admitted == heard[0][0]


def test_cancel_twice_or_of_an_unknown_request_does_nothing() -> None:
    engine, _ = new_engine()
    engine.add(request(1, range(5)))
    engine.cancel(RequestId("r1"))
    engine.cancel(RequestId("r1"))
    engine.cancel(RequestId("other"))
    assert engine.step().finished == [(1, "cancelled")]


def test_finish_ends_one_choice_with_reason_stop() -> None:
    engine, _ = new_engine()
    asked = request(1, range(10), n=2)
    engine.add(asked)
    told = Told()
    for _ in range(3):
        told.take(engine.step())
    engine.finish(1)
    engine.finish(99)
    told.take(engine.step())
    assert told.reasons[1] == "stop"
    assert told.tokens[1] == alone(asked)[: len(told.tokens[1])]
    rest = run(engine)
    assert told.tokens[2] + rest.tokens[2] == alone(asked, choice=1)


def test_choices_compute_their_prompt_once() -> None:
    engine, runner = new_engine(step_tokens=64)
    asked = request(1, range(33), n=4, max_tokens=1)
    engine.add(asked)
    told = run(engine)
    assert runner.num_computed_tokens == 33 + 3
    assert told.cached == {"r1": 0}
    assert [told.tokens[stream] for stream in (1, 2, 3, 4)] == [
        alone(asked, choice) for choice in range(4)
    ]


def test_a_second_request_reports_what_was_cached() -> None:
    engine, runner = new_engine()
    engine.add(request(1, range(16)))
    run(engine)
    before = runner.num_computed_tokens
    engine.add(request(2, range(16), max_tokens=1))
    told = run(engine)
    # The block of the last prompt token is computed again, for its logits.
    assert told.cached == {"r2": 12}
    assert runner.num_computed_tokens - before == 4


def test_output_is_found_by_the_next_turn() -> None:
    engine, _ = new_engine()
    first = request(1, range(6), max_tokens=8)
    engine.add(first)
    run(engine)
    engine.add(request(2, [*range(6), *alone(first), 1, 2, 3]))
    assert run(engine).cached == {"r2": 12}


def test_requests_that_begin_together_share_what_the_first_has_computed() -> None:
    engine, runner = new_engine(step_tokens=16)
    for stream in range(1, 5):
        engine.add(request(stream, [*range(40), stream], max_tokens=1))
    run(engine)
    # Only what is computed in one and the same step is computed twice: 4 * 41 without sharing.
    assert runner.num_computed_tokens <= 41 + 16


def test_equal_prompts_of_whole_blocks_still_compute_their_last_token() -> None:
    # The second is left with its last block just when the first has computed the same one.
    engine, _ = new_engine(step_tokens=12)
    asked = [request(stream, range(44), max_tokens=2) for stream in (1, 2)]
    for each in asked:
        engine.add(each)
    assert run(engine).tokens == {each.first_stream: alone(each) for each in asked}


def test_stop_tokens_and_eos_end_a_choice_with_the_token() -> None:
    base = request(1, range(7), max_tokens=12)
    free = alone(base)
    for stops, sampling in (
        ((free[3],), SamplingParams()),
        ((), SamplingParams(stop_token_ids=(free[3],))),
    ):
        engine, _ = new_engine()
        engine.add(request(1, range(7), max_tokens=12, eos_token_ids=stops, sampling=sampling))
        told = run(engine)
        assert told.tokens[1] == free[: free.index(free[3]) + 1]
        assert told.reasons[1] == "stop"


def test_ignore_eos_ignores_eos_but_not_stop_tokens() -> None:
    free = alone(request(1, range(7), max_tokens=12))
    engine, _ = new_engine()
    sampling = SamplingParams(ignore_eos=True)
    engine.add(request(1, range(7), max_tokens=12, eos_token_ids=(free[0],), sampling=sampling))
    told = run(engine)
    assert told.tokens[1] == free
    assert told.reasons[1] == "length"


def test_the_context_ends_a_choice_with_length() -> None:
    engine, _ = new_engine(context_tokens=20)
    asked = request(1, range(15), max_tokens=100)
    engine.add(asked)
    told = run(engine)
    assert told.tokens[1] == alone(asked)[:5]
    assert told.reasons[1] == "length"


def test_a_lone_sequence_may_fill_the_whole_pool() -> None:
    engine, _ = new_engine(num_blocks=3, context_tokens=100)
    engine.add(request(1, range(3), max_tokens=100))
    told = run(engine)
    assert len(told.tokens[1]) == 9
    assert told.reasons[1] == "length"


def test_replayed_output_counts_for_randomness_and_penalties() -> None:
    sampling = SamplingParams(frequency_penalty=0.5)
    whole = request(1, range(9), max_tokens=10, sampling=sampling)
    tokens = alone(whole)
    engine, _ = new_engine()
    engine.add(
        request(
            1,
            [*range(9), *tokens[:6]],
            max_tokens=4,
            num_replayed_tokens=6,
            sampling=sampling,
        )
    )
    assert run(engine).tokens[1] == tokens[6:]


def test_a_paused_stream_is_no_work_and_goes_on_where_it_was() -> None:
    engine, _ = new_engine()
    asked = request(1, range(5), max_tokens=6)
    engine.add(asked)
    told = Told()
    told.take(engine.step())
    engine.pause(1)
    assert not engine.has_work()
    assert engine.num_paused == 1
    engine.resume(1)
    rest = run(engine)
    assert told.tokens[1] + rest.tokens[1] == alone(asked)


def test_a_paused_stream_can_be_cancelled() -> None:
    engine, _ = new_engine()
    engine.add(request(1, range(5)))
    engine.step()
    engine.pause(1)
    engine.cancel(RequestId("r1"))
    assert engine.step().finished == [(1, "cancelled")]
    engine.check()


def test_pause_and_resume_of_unknown_streams_do_nothing() -> None:
    engine, _ = new_engine()
    engine.pause(7)
    engine.resume(7)
    assert not engine.has_work()


def test_a_failing_row_fails_its_request_alone() -> None:
    engine, runner = new_engine()
    good = request(10, range(8), max_tokens=3)
    engine.add(request(1, range(6), n=2))
    engine.add(good)
    runner.failing_streams[2] = BAD_LOGITS
    told = run(engine)
    assert told.failed == {"r1": "internal_error"}
    assert told.tokens[10] == alone(good)
    assert 2 not in told.tokens


def test_nothing_of_a_failed_request_is_told_in_the_step_it_fails() -> None:
    engine, runner = new_engine()
    engine.add(request(1, range(3), n=2, max_tokens=1))
    runner.failing_streams[2] = BAD_LOGITS
    output = engine.step()
    assert not output.tokens
    assert output.failed == [("r1", BAD_LOGITS)]
    engine.check()


def test_a_failing_step_fails_the_requests_in_it_and_no_others() -> None:
    engine, runner = new_engine(max_sequences=1)
    waiting = request(2, range(5))
    engine.add(request(1, range(5)))
    engine.add(waiting)
    runner.raise_next = OutOfMemory("cannot allocate activations: 0 bytes are free")
    told = run(engine)
    assert told.failed == {"r1": "out_of_memory"}
    assert told.tokens == {2: alone(waiting)}


def test_nothing_of_a_failed_step_is_offered_to_later_requests() -> None:
    engine, runner = new_engine()
    runner.raise_next = OutOfMemory("cannot allocate activations: 0 bytes are free")
    engine.add(request(1, range(16)))
    run(engine)
    runner.failing_streams[2] = BAD_LOGITS
    engine.add(request(2, range(16)))
    run(engine)
    engine.add(request(3, range(16)))
    assert run(engine).cached == {"r3": 0}


def test_a_prompt_beyond_the_context_is_refused_in_the_words_clients_know() -> None:
    engine, _ = new_engine(context_tokens=20)
    with pytest.raises(ContextLengthExceeded, match="prompt is too long: 20 tokens > 19 maximum"):
        engine.add(request(1, range(20)))
    assert not engine.has_work()


def test_a_prompt_beyond_the_pool_is_refused_with_the_arithmetic() -> None:
    engine, _ = new_engine(num_blocks=4, context_tokens=100)
    with pytest.raises(OutOfMemory, match=r"17 tokens.* needs 5 blocks of 4 .*has 4 \(16 tokens\)"):
        engine.add(request(1, range(17)))


def test_a_full_queue_refuses_and_says_when_to_retry() -> None:
    engine, _ = new_engine(max_sequences=1, max_waiting=1)
    engine.add(request(1, range(5)))
    engine.add(request(2, range(5)))
    with pytest.raises(QueueFull) as caught:
        engine.add(request(3, range(5)))
    assert caught.value.retry_after_s is not None
    engine.step()
    engine.cancel(RequestId("r2"))
    engine.add(request(4, range(5)))
    assert set(run(engine).reasons) == {1, 2, 4}


def test_an_empty_queue_takes_a_request_of_any_number_of_choices() -> None:
    engine, _ = new_engine(max_sequences=1, max_waiting=0)
    engine.add(request(1, range(5), n=5))
    assert len(run(engine).tokens) == 5


@pytest.mark.parametrize(
    "bad",
    [
        request(5, []),
        request(5, range(3), num_replayed_tokens=3),
        request(5, range(3), max_tokens=0),
        request(5, range(3), n=0),
        request(1, range(3)),
        request(0, range(3), n=2),
    ],
    ids=["no prompt", "only replay", "no tokens", "no choices", "same id", "same stream"],
)
def test_a_request_that_contradicts_itself_is_refused(bad: EngineRequest) -> None:
    engine, _ = new_engine()
    engine.add(request(1, range(3)))
    with pytest.raises(InvalidRequest):
        engine.add(bad)
    engine.check()


def test_a_choice_ends_when_its_grammar_is_complete() -> None:
    engine, _ = new_engine()
    grammar = Countdown(3)
    asked = replace(request(1, range(10), n=2, max_tokens=9), grammar=grammar)
    engine.add(asked)
    told = run(engine)
    assert told.reasons == {1: "stop", 2: "stop"}
    for choice, watching in enumerate([grammar, *grammar.forks]):
        assert told.tokens[1 + choice] == watching.taken == alone(asked, choice)[:3]


def test_a_grammar_that_is_complete_with_the_last_token_ends_with_stop() -> None:
    engine, _ = new_engine()
    engine.add(replace(request(1, range(10), max_tokens=3), grammar=Countdown(3)))
    assert run(engine).reasons == {1: "stop"}


def test_an_end_token_ends_what_has_a_grammar_even_if_it_is_to_be_ignored() -> None:
    asked = request(1, range(10), sampling=SamplingParams(ignore_eos=True))
    end = alone(asked)[1]
    engine, _ = new_engine()
    grammar = Countdown(99)
    engine.add(replace(asked, eos_token_ids=(end,), grammar=grammar))
    told = run(engine)
    assert told.reasons == {1: "stop"}
    assert grammar.taken == told.tokens[1][:-1]


def test_a_grammar_is_told_each_token_once_whatever_preemption_computes_again() -> None:
    engine, _ = new_engine(num_blocks=8, max_sequences=3)
    grammars = [Countdown(99) for _ in range(3)]
    for stream, grammar in enumerate(grammars):
        asked = request(stream, range(4 * stream, 4 * stream + 6), max_tokens=12)
        engine.add(replace(asked, grammar=grammar))
    told = run(engine)
    assert engine.scheduler.num_preemptions > 0
    assert [told.tokens[stream] for stream in range(3)] == [one.taken for one in grammars]
