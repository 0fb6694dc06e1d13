"""Who is computed, who waits and who loses its blocks."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ConfigError, OutOfMemory
from cortex_core.ids import RequestId
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from tests.fakes.fake_runner import FakeRunner
from tests.unit.neurond.engine.engines import PLACEHOLDER, Told, alone, new_engine, request, run


def streams(engine: Engine, runner: FakeRunner, told: Told | None = None) -> list[int]:
    """Take a step; return the streams it chose a token for, in the order of the batch."""
    output = engine.step()
    engine.check()
    if told is not None:
        told.take(output)
    assert runner.last_batch is not None
    return [row.stream for row in runner.last_batch.rows]


def query_lengths(runner: FakeRunner) -> list[int]:
    assert runner.last_batch is not None
    return [stop - start for start, stop in pairwise(runner.last_batch.cu_seqlens_q)]


def paced_engine(
    quiet_s: float, *, max_sequences: int = 8, num_blocks: int = 900
) -> tuple[Engine, FakeRunner]:
    """Return an engine of which stream 1 decodes, where a token of a prompt takes 1 ms."""
    engine, runner = new_engine(
        num_blocks=num_blocks, context_tokens=1200, step_tokens=512, max_sequences=max_sequences
    )
    engine.add(request(1, range(512), max_tokens=400))
    engine.step()
    engine.took(0.512)
    engine.step()
    engine.took(quiet_s)
    return engine, runner


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    engine, runner = new_engine(step_tokens=10)
    engine.add(request(1, range(3), max_tokens=20))
    engine.step()
    engine.add(request(2, range(100, 126)))
    lengths = []
    for _ in range(5):
        assert streams(engine, runner)[0] == 1
        lengths.append(query_lengths(runner))
    # One token of the budget of ten decodes; chunks end at the blocks of four tokens.
    assert lengths == [[1, 8], [1, 8], [1, 8], [1, 2], [1, 1]]


def test_chunks_smaller_than_a_block_get_there_too() -> None:
    engine, runner = new_engine(step_tokens=3, max_sequences=3)
    asked = request(1, range(10), max_tokens=1)
    engine.add(asked)
    assert run(engine).tokens[1] == alone(asked)
    assert runner.num_steps == 4


@given(st.sampled_from((0.0, 0.001, 0.1)))
def test_no_step_exceeds_its_budget_or_its_places(token_s: float) -> None:
    engine, runner = new_engine(step_tokens=9, max_sequences=4)
    for stream in range(10):
        prompt = range(stream * 50, stream * 50 + 7)
        engine.add(request(stream, prompt, priority=stream % 2))
    while engine.has_work():
        engine.step()
        engine.took(0.01 + token_s * sum(query_lengths(runner)))
        assert runner.last_batch is not None
        assert runner.last_batch.num_tokens <= 9
        assert runner.last_batch.num_sequences <= 4


def first_tokens(engine: Engine, *awaited: int) -> list[int]:
    """Step until the awaited streams have a token; return the streams in the order of theirs."""
    order: list[int] = []
    for _ in range(200):
        order += [stream for stream, _, _ in engine.step().tokens if stream not in order]
        engine.check()
        if set(awaited) <= set(order):
            return order
    raise AssertionError(f"only {order} have a token")


def test_a_short_prompt_passes_long_ones_that_came_before() -> None:
    engine, runner = new_engine(num_blocks=100, step_tokens=8)
    engine.add(request(1, range(100)))
    engine.add(request(2, range(200, 300)))
    engine.step()
    engine.add(request(3, range(400, 412), max_tokens=1))
    before = runner.num_computed_tokens
    assert first_tokens(engine, 3) == [3]
    assert runner.num_computed_tokens - before <= 2 * 12 + 8
    assert first_tokens(engine, 1, 2) == [1, 2]


def test_prompts_of_like_length_come_one_after_another() -> None:
    engine, _ = new_engine(num_blocks=100, step_tokens=8)
    engine.add(request(1, range(100), max_tokens=1))
    engine.add(request(2, range(200, 260), max_tokens=1))
    engine.step()
    assert engine.num_waiting == 1
    assert first_tokens(engine, 1, 2) == [1, 2]


def test_what_is_cached_makes_a_prompt_short() -> None:
    engine, _ = new_engine(num_blocks=100, step_tokens=8)
    engine.add(request(1, range(100, 190), max_tokens=1))
    run(engine)
    engine.add(request(2, range(200, 290)))
    engine.step()
    engine.add(request(3, range(100, 192)))
    assert first_tokens(engine, 3) == [3]


def test_a_prompt_of_higher_priority_passes_one_that_is_being_computed() -> None:
    engine, runner = new_engine(num_blocks=100, step_tokens=8)
    engine.add(request(1, range(100)))
    engine.step()
    engine.add(request(2, range(200, 300), priority=1))
    before = runner.num_computed_tokens
    assert first_tokens(engine, 2) == [2]
    assert runner.num_computed_tokens - before <= 100 + 8


def test_sixty_prompts_of_one_principal_do_not_hold_up_the_one_of_another() -> None:
    engine, runner = new_engine(num_blocks=200, step_tokens=8)
    for stream in range(60):
        prompt = range(stream * 100, stream * 100 + 80)
        engine.add(request(stream, prompt, principal="many", max_tokens=1))
    engine.step()
    engine.add(request(60, range(9000, 9080), principal="one", max_tokens=1))
    before = runner.num_computed_tokens
    first_tokens(engine, 60)
    assert runner.num_computed_tokens - before <= 2 * 80 + 16


def test_a_beginning_that_principals_share_is_computed_once() -> None:
    engine, runner = new_engine(num_blocks=200, step_tokens=8)
    for stream, principal in enumerate(("a", "b", "c")):
        prompt = [*range(80), stream, *range(90, 98)]
        engine.add(request(stream, prompt, principal=principal, max_tokens=1))
    told = run(engine)
    assert runner.num_computed_tokens <= 80 + 3 * 13
    for stream in range(3):
        expected = request(stream, [*range(80), stream, *range(90, 98)], max_tokens=1)
        assert told.tokens[stream] == alone(expected)


@pytest.mark.parametrize("num_tail", [1, 9])
def test_what_others_computed_meanwhile_is_told_as_cached(num_tail: int) -> None:
    engine, runner = new_engine(num_blocks=200, step_tokens=8)
    for stream in range(4):
        engine.add(request(stream, [*range(80), *[90 + stream] * num_tail], max_tokens=2))
    told = Told()
    while engine.has_work():
        known = dict(told.tokens)
        output = engine.step()
        told.take(output)
        assert not any(int(id_[1:]) in known for id_, _ in output.adopted), "before its first token"
    cached = [told.cached[RequestId(f"r{stream}")] for stream in range(4)]
    assert cached == [0, 80, 80, 80]
    assert 4 * (80 + num_tail) - sum(cached) == runner.num_computed_tokens - 4  # one output each


def test_what_is_found_again_after_being_put_out_was_not_cached() -> None:
    engine, _ = new_engine(num_blocks=40, step_tokens=8, max_sequences=1)
    engine.add(request(1, range(40), max_tokens=2))
    told = Told()
    for _ in range(3):
        told.take(engine.step())
    engine.add(request(2, range(900, 908), priority=1, max_tokens=1))
    run(engine, told)
    assert engine.scheduler.num_preemptions == 1
    assert told.tokens[1] == alone(request(1, range(40), max_tokens=2))
    assert told.cached[RequestId("r1")] == 0


def test_beside_decodes_a_prompt_gets_what_the_time_of_a_step_allows() -> None:
    engine, runner = paced_engine(0.040)
    engine.add(request(2, range(2000, 3000)))
    engine.step()
    assert query_lengths(runner) == [1, 28]  # of 1.75 times 40 ms, in whole blocks
    engine.cancel(RequestId("r1"))
    engine.step()
    assert query_lengths(runner) == [512]


def test_of_eight_steps_one_is_without_prompts_whoever_was_passed_over() -> None:
    """Prompts of a higher priority come in every step, and leave two tokens of the step's three."""
    engine, runner = new_engine(num_blocks=1000, max_sequences=20, step_tokens=20)
    engine.add(request(0, range(20), max_tokens=1))
    engine.step()
    engine.took(0.020)  # 1 ms for a token of a prompt
    for stream in range(1, 18):
        engine.add(request(stream, [stream], max_tokens=100))
    engine.step()
    engine.took(0.020)
    engine.add(request(19, range(100, 220)))
    quiet: list[bool] = []
    for stream in range(20, 100):
        engine.add(request(stream, [stream], max_tokens=1, priority=1))
        engine.step()
        batch = runner.last_batch
        assert batch is not None
        prefilled = batch.num_tokens - batch.num_decodes
        engine.took(0.020 + 0.001 * prefilled)
        quiet.append(not prefilled)
    assert all(any(quiet[start : start + 8]) for start in range(len(quiet) - 7))
    assert sum(quiet) <= len(quiet) / 8


@pytest.mark.parametrize(
    ("choices", "priority", "max_sequences", "num_blocks", "tokens"),
    [
        # Of 0.1 s, as three times 35 ms are more.
        pytest.param((1, 1, 1), 0, 8, 900, 80, id="each can be computed"),
        pytest.param((3,), 0, 8, 900, 16, id="two wait for the prompt of the first"),
        pytest.param((1, 1, 1), -1, 8, 900, 16, id="of lower priority than who decodes"),
        pytest.param((1, 1, 1), 0, 2, 900, 16, id="there is a place for one"),
        pytest.param((1, 1, 1), 0, 8, 450, 16, id="there are blocks for one"),
        pytest.param((1, 1, 1), 0, 8, 700, 48, id="there are blocks for two"),
    ],
)
def test_few_who_decode_leave_a_crowd_that_could_be_computed_longer_steps(
    choices: tuple[int, ...], priority: int, max_sequences: int, num_blocks: int, tokens: int
) -> None:
    engine, runner = paced_engine(0.020, max_sequences=max_sequences, num_blocks=num_blocks)
    for index, n in enumerate(choices, start=1):
        prompt = range(1000 * index, 1000 * index + 1000)
        engine.add(request(10 * index, prompt, n=n, priority=priority))
    for _ in range(3):
        engine.step()
        assert sum(query_lengths(runner)) == 1 + tokens


def test_prompts_are_paced_for_those_who_decode_in_another_engine() -> None:
    other, _ = new_engine()
    engine, runner = new_engine(num_blocks=900, context_tokens=1200, step_tokens=512)
    other.add(request(1, range(40), priority=1))
    engine.add(request(1, range(512), max_tokens=1))
    engine.step()
    engine.took(0.512)
    for stream in range(2, 5):
        engine.add(request(stream, range(1000 * stream, 1000 * stream + 1000)))
    engine.step(decoding_elsewhere=lambda: other.decoding)
    assert query_lengths(runner) == [512]  # the other computes a prompt, too
    engine.took(0.512)
    while not other.decoding:
        other.step()
    assert other.decoding == [1]
    for _ in range(10):
        engine.step(decoding_elsewhere=lambda: other.decoding)
        assert sum(query_lengths(runner)) == 24  # of 25 ms: who ranks lower is no crowd
        engine.took(0.024)
    engine.step(decoding_elsewhere=lambda: [0])
    assert sum(query_lengths(runner)) == 72  # of three times 25 ms, in whole blocks
    run(other)
    assert other.decoding == []


def test_the_time_of_a_step_that_was_not_computed_changes_no_pace() -> None:
    engine, runner = paced_engine(0.040)
    engine.add(request(2, range(2000, 3000)))
    runner.raise_next = OutOfMemory("cannot compute the step")
    assert len(engine.step().failed) == 2
    engine.took(9.0)
    engine.add(request(3, range(4000, 4512), max_tokens=400))
    engine.step()
    engine.took(0.512)
    engine.step()
    engine.took(0.040)
    engine.add(request(4, range(6000, 7000)))
    engine.step()
    assert query_lengths(runner) == [1, 28]  # as above


@given(
    st.lists(st.integers(0, 1), min_size=2, max_size=4),
    st.integers(6, 12),
)
def test_who_is_put_out_ranks_last(priorities: list[int], num_blocks: int) -> None:
    engine, runner = new_engine(num_blocks=num_blocks)
    for stream, priority in enumerate(priorities):
        prompt = range(stream * 50, stream * 50 + 3)
        engine.add(request(stream, prompt, priority=priority, max_tokens=20))
    running: list[int] = []
    while engine.has_work():
        preempted = engine.scheduler.num_preemptions
        ended = {stream for stream, _, reason in engine.step().tokens if reason is not None}
        assert runner.last_batch is not None
        now = [row.stream for row in runner.last_batch.rows]
        ranked = sorted(running, key=lambda stream: (-priorities[stream], stream))
        lost = engine.scheduler.num_preemptions - preempted
        assert set(ranked[: len(ranked) - lost]) <= set(now)
        running = [stream for stream in now if stream not in ended]


def test_requests_start_in_the_order_they_came() -> None:
    engine, _ = new_engine(max_sequences=1)
    for stream in (3, 1, 2):
        engine.add(request(stream, range(5)))
    assert list(run(engine).tokens) == [3, 1, 2]


def test_higher_priority_starts_first() -> None:
    engine, _ = new_engine(max_sequences=1)
    engine.add(request(1, range(5)))
    engine.add(request(2, range(5), priority=-1))
    engine.add(request(3, range(5), priority=5))
    assert list(run(engine).tokens) == [3, 1, 2]


def test_principals_take_turns() -> None:
    engine, runner = new_engine(max_sequences=2)
    for stream in (1, 2, 3):
        engine.add(request(stream, range(5), principal="a"))
    engine.add(request(4, range(5), principal="b"))
    engine.step()
    assert streams(engine, runner) == [1, 4]


def test_without_blocks_the_youngest_goes_and_later_gives_the_same_tokens() -> None:
    engine, runner = new_engine(num_blocks=7)
    old = request(1, range(10, 17), max_tokens=15)
    young = request(2, range(20, 27), max_tokens=15)
    engine.add(old)
    engine.add(young)
    told = Told()
    while engine.scheduler.num_preemptions == 0:
        chosen = streams(engine, runner, told)
    assert chosen == [1]
    assert engine.num_waiting == 1
    while engine.has_work():
        streams(engine, runner, told)
    assert told.tokens == {1: alone(old), 2: alone(young)}


def test_without_blocks_the_lowest_priority_goes_even_if_it_is_older() -> None:
    engine, runner = new_engine(num_blocks=7)
    engine.add(request(1, range(10, 17), max_tokens=15))
    engine.add(request(2, range(20, 27), max_tokens=15, priority=1))
    while engine.scheduler.num_preemptions == 0:
        chosen = streams(engine, runner)
    assert chosen == [2]


def test_one_put_out_is_not_overtaken_by_one_that_never_began() -> None:
    engine, runner = new_engine(num_blocks=7)
    engine.add(request(1, range(10, 17), max_tokens=15, principal="a"))
    engine.add(request(2, range(20, 27), max_tokens=15, principal="a"))
    while engine.scheduler.num_preemptions == 0:
        engine.step()
    # There is room for this one, and its principal has nothing running.
    engine.add(request(3, range(30, 31), max_tokens=1, principal="b"))
    assert streams(engine, runner) == [1]
    engine.cancel(RequestId("r1"))
    assert streams(engine, runner) == [2, 3]


def test_a_newcomer_leaves_a_block_to_each_that_runs() -> None:
    engine, runner = new_engine(num_blocks=4)
    engine.add(request(1, range(10, 19), max_tokens=3))
    engine.step()
    engine.add(request(2, range(20, 23)))
    assert streams(engine, runner) == [1]
    assert engine.num_waiting == 1
    run(engine)
    assert engine.scheduler.num_preemptions == 0


def test_paused_streams_lose_their_blocks_before_running_ones() -> None:
    engine, _ = new_engine(num_blocks=7)
    paused = request(1, range(10, 17), max_tokens=15)
    running = request(2, range(20, 27), max_tokens=15)
    engine.add(paused)
    engine.add(running)
    told = Told()
    told.take(engine.step())
    engine.pause(1)
    while engine.has_work():
        told.take(engine.step())
    assert engine.scheduler.num_preemptions == 0
    assert told.tokens[2] == alone(running)
    engine.resume(1)
    while engine.has_work():
        told.take(engine.step())
    assert told.tokens[1] == alone(paused)


def test_paused_streams_make_room_for_those_that_wait() -> None:
    engine, _ = new_engine(num_blocks=4)
    engine.add(request(1, range(10, 24), max_tokens=2))
    engine.step()
    engine.pause(1)
    waiting = request(2, range(20, 34), max_tokens=2)
    engine.add(waiting)
    assert run(engine).tokens == {2: alone(waiting)}


def test_a_paused_stream_keeps_its_blocks_while_nobody_wants_them() -> None:
    engine, runner = new_engine()
    engine.add(request(1, range(14)))
    engine.step()
    engine.pause(1)
    engine.resume(1)
    before = runner.num_computed_tokens
    engine.step()
    assert runner.num_computed_tokens - before == 1


def test_a_resumed_stream_waits_when_its_place_is_taken() -> None:
    engine, runner = new_engine(max_sequences=1)
    first = request(1, range(5), max_tokens=5)
    engine.add(first)
    engine.add(request(2, range(7)))
    told = Told()
    streams(engine, runner, told)
    engine.pause(1)
    assert streams(engine, runner, told) == [2]
    engine.resume(1)
    assert streams(engine, runner, told) == [2]
    while engine.has_work():
        streams(engine, runner, told)
    assert told.tokens[1] == alone(first)


def test_a_paused_stream_gives_its_place_away() -> None:
    engine, runner = new_engine(max_sequences=1)
    engine.add(request(1, range(5)))
    engine.step()
    engine.pause(1)
    engine.add(request(2, range(5)))
    assert streams(engine, runner) == [2]


def test_choices_wait_for_the_first_only_while_it_computes_their_prompt() -> None:
    engine, runner = new_engine()
    engine.add(request(1, range(40), n=2))
    engine.step()
    engine.pause(1)
    for _ in range(3):
        chosen = streams(engine, runner)
    assert chosen == [2]


def test_choices_with_nothing_to_share_start_together() -> None:
    engine, runner = new_engine()
    engine.add(request(1, range(3), n=3))
    assert streams(engine, runner) == [1, 2, 3]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_blocks": 0, "context_tokens": 10}, "must be positive"),
        ({"num_blocks": 1, "context_tokens": 0}, "must be positive"),
        ({"num_blocks": 1, "context_tokens": 9, "step_tokens": 63}, "at least max_sequences"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SchedulerConfig(**sizes)


def test_an_image_seen_both_ways_is_not_kept_out_by_a_higher_priority() -> None:
    engine, runner = new_engine(num_blocks=200, step_tokens=20, two_way_tokens=12)
    prompt = [1, 2, 3, 4, *[PLACEHOLDER] * 12, 5, 6]
    engine.add(request(0, prompt, images=((b"a", 12),), max_tokens=1))
    for stream in range(1, 20):
        engine.add(request(stream, [1000 + stream] * 9, max_tokens=1, priority=1))
        told = [stream for stream, _, _ in engine.step().tokens]
        assert runner.last_batch is not None
        assert runner.last_batch.num_tokens <= 20
        if 0 in told:
            return
    raise AssertionError("it is kept out")
