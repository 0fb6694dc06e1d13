"""Who is computed, who waits and who loses its blocks."""

from itertools import pairwise

import pytest

from cortex_core.errors import ConfigError
from cortex_core.ids import RequestId
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from tests.fakes.fake_runner import FakeRunner
from tests.unit.neurond.engine.engines import Told, alone, new_engine, request, run


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


def test_no_step_exceeds_its_budget_or_its_places() -> None:
    engine, runner = new_engine(step_tokens=9, max_sequences=4)
    for stream in range(10):
        engine.add(request(stream, range(stream * 50, stream * 50 + 7)))
    while engine.has_work():
        engine.step()
        assert runner.last_batch is not None
        assert runner.last_batch.num_tokens <= 9
        assert runner.last_batch.num_sequences <= 4


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
