"""Who waits and ranks higher takes the place and the blocks of who runs and ranks lower."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurond.engine.blocks import blocks_for
from neurond.engine.engine import Engine, EngineRequest
from tests.fakes.fake_runner import FakeRunner
from tests.unit.neurond.engine.engines import BLOCK_TOKENS, Told, alone, new_engine, request, run


def in_step(engine: Engine, runner: FakeRunner, told: Told) -> list[int]:
    """Take a step; return the streams it chose a token for, in order."""
    told.take(engine.step())
    engine.check()
    assert runner.last_batch is not None
    return sorted(row.stream for row in runner.last_batch.rows)


def run_dry(engine: Engine, told: Told, asked: list[EngineRequest]) -> None:
    """Step until all have ended, and each with the tokens it would have alone."""
    for _ in range(500):
        if engine.has_work():
            told.take(engine.step())
            engine.check()
    assert not engine.has_work()
    assert told.tokens == {each.first_stream: alone(each) for each in asked}


def test_the_lowest_priority_gives_its_place_to_a_higher_one() -> None:
    engine, runner = new_engine(max_sequences=3)
    priorities = (1, 0, 0, 2)
    asked = [
        request(stream, range(10 * stream, 10 * stream + 6), priority=priority, max_tokens=9)
        for stream, priority in enumerate(priorities, start=1)
    ]
    told = Told()
    for each in asked[:3]:
        engine.add(each)
    for _ in range(2):
        in_step(engine, runner, told)
    engine.add(asked[3])
    # Of the two of lowest priority the younger one goes.
    assert in_step(engine, runner, told) == [1, 2, 4]
    assert (engine.num_running, engine.num_waiting) == (3, 1)
    assert engine.scheduler.num_preemptions == 1
    run_dry(engine, told, asked)


def test_the_lowest_priority_gives_its_blocks_to_a_higher_one() -> None:
    engine, runner = new_engine(num_blocks=7, step_tokens=64)
    asked = [
        request(1, range(10, 17), max_tokens=12),
        request(2, range(20, 27), max_tokens=5),
        request(3, range(30, 43), max_tokens=6, priority=1),
    ]
    told = Told()
    engine.add(asked[0])
    engine.add(asked[1])
    assert in_step(engine, runner, told) == [1, 2]
    engine.add(asked[2])
    # Four blocks of seven are wanted, and one is to be left for who goes on.
    assert in_step(engine, runner, told) == [1, 3]
    run_dry(engine, told, asked)


def test_one_whose_prompt_is_being_computed_gives_way_too() -> None:
    engine, runner = new_engine(max_sequences=1, step_tokens=8)
    asked = [request(1, range(30)), request(2, range(40, 46), priority=1)]
    told = Told()
    engine.add(asked[0])
    assert in_step(engine, runner, told) == []
    engine.add(asked[1])
    assert in_step(engine, runner, told) == [2]
    run_dry(engine, told, asked)
    assert engine.scheduler.num_preemptions == 1


def test_decodes_that_take_the_whole_step_keep_nobody_out() -> None:
    engine, runner = new_engine(max_sequences=2, step_tokens=2)
    asked = [request(stream, [stream], max_tokens=9) for stream in (1, 2)]
    asked.append(request(3, [3, 4], priority=1))
    told = Told()
    for each in asked[:2]:
        engine.add(each)
    assert in_step(engine, runner, told) == [1, 2]
    engine.add(asked[2])
    assert in_step(engine, runner, told) == [1]  # and the first token of the other one's prompt
    assert in_step(engine, runner, told) == [1, 3]
    run_dry(engine, told, asked)


def test_paused_streams_lose_their_blocks_before_one_that_runs() -> None:
    engine, runner = new_engine(num_blocks=8, step_tokens=64)
    asked = [
        request(1, range(10, 22), max_tokens=3, priority=2),
        request(2, range(20, 25), max_tokens=6),
        request(3, range(30, 43), max_tokens=2, priority=1),
    ]
    told = Told()
    engine.add(asked[0])
    engine.add(asked[1])
    in_step(engine, runner, told)
    engine.pause(1)
    engine.add(asked[2])
    assert in_step(engine, runner, told) == [2, 3]
    assert engine.scheduler.num_preemptions == 0
    engine.resume(1)
    run_dry(engine, told, asked)


def test_nobody_is_put_out_in_vain() -> None:
    engine, runner = new_engine(num_blocks=8, step_tokens=64)
    asked = [
        request(1, range(10, 26), max_tokens=4, priority=2),
        request(2, range(30, 33), max_tokens=8),
        request(3, range(40, 57), max_tokens=2, priority=1),
    ]
    told = Told()
    engine.add(asked[0])
    engine.add(asked[1])
    in_step(engine, runner, told)
    engine.add(asked[2])
    # With the blocks of the second it had three of the five it needs.
    for _ in range(3):
        assert in_step(engine, runner, told) == [1, 2]
    assert in_step(engine, runner, told) == [2, 3]
    run_dry(engine, told, asked)
    assert engine.scheduler.num_preemptions == 0


def test_blocks_that_are_shared_are_not_gained() -> None:
    """What the newcomer can begin with, and what goes on being used, is not there to be freed."""
    engine, runner = new_engine(num_blocks=6, step_tokens=64)
    asked = [
        request(1, range(13), max_tokens=3, priority=2),
        request(2, range(13), max_tokens=9),
        request(3, [*range(8), *range(20, 29)], max_tokens=2, priority=1),
    ]
    told = Told()
    engine.add(asked[0])
    in_step(engine, runner, told)
    engine.add(asked[1])
    assert in_step(engine, runner, told) == [1, 2]
    engine.add(asked[2])
    # Beside the first one, which has four, there is never room for three more and a spare one.
    told.take(engine.step())
    assert engine.scheduler.num_preemptions == 0
    run_dry(engine, told, asked)


@pytest.mark.parametrize("principal", [None, "b"])
def test_equals_keep_their_places(principal: str | None) -> None:
    engine, _ = new_engine(max_sequences=2)
    for stream in range(8):
        prompt = range(10 * stream, 10 * stream + 5)
        engine.add(request(stream, prompt, principal=principal if stream % 2 else "a"))
    run(engine)
    assert engine.scheduler.num_preemptions == 0


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 14), st.integers(1, 8), st.integers(0, 3)),
    min_size=2,
    max_size=10,
)
"""Priority, tokens of the prompt, tokens of the answer, steps until the next one comes."""


def watch(
    arrivals: list[tuple[int, int, int, int]],
    engine: Engine,
    runner: FakeRunner,
    seen: Callable[[set[int], set[int], Told], None],
) -> None:
    """Tell `seen` of each step: who was computed, who was not, and what was told before it."""
    asked: dict[int, EngineRequest] = {}
    told = Told()

    def step() -> None:
        live = {stream for stream in asked if stream not in told.reasons}
        before = Told()
        before.tokens = {stream: list(tokens) for stream, tokens in told.tokens.items()}
        running = set(in_step(engine, runner, told)) if live else set()
        seen(running, live - running, before)

    for stream, (priority, length, max_tokens, pause) in enumerate(arrivals):
        prompt = range(20 * stream, 20 * stream + length)
        asked[stream] = request(stream, prompt, max_tokens=max_tokens, priority=priority)
        engine.add(asked[stream])
        for _ in range(pause):
            step()
    for _ in range(300):
        step()
    assert told.tokens == {stream: alone(each) for stream, each in asked.items()}


@given(arrivals=ARRIVALS, max_sequences=st.integers(1, 3))
def test_nobody_waits_for_the_place_of_a_lower_priority(arrivals, max_sequences: int) -> None:
    engine, runner = new_engine(max_sequences=max_sequences, step_tokens=200)
    priority = [each[0] for each in arrivals]

    def seen(running: set[int], waiting: set[int], told: Told) -> None:
        del told
        if waiting:
            highest = max(priority[stream] for stream in waiting)
            assert all(priority[stream] >= highest for stream in running)

    watch(arrivals, engine, runner, seen)
    if len(set(priority)) == 1:
        assert engine.scheduler.num_preemptions == 0


@given(arrivals=ARRIVALS, num_blocks=st.integers(6, 14))
def test_nobody_waits_for_the_blocks_of_a_lower_priority(arrivals, num_blocks: int) -> None:
    engine, runner = new_engine(max_sequences=10, num_blocks=num_blocks, step_tokens=200)
    priority = [each[0] for each in arrivals]

    def seen(running: set[int], waiting: set[int], told: Told) -> None:
        def num_blocks_of(stream: int) -> int:
            num_tokens = arrivals[stream][1] + len(told.tokens.get(stream, ()))
            return blocks_for(num_tokens, BLOCK_TOKENS)

        if not waiting:
            return
        highest = max(priority[stream] for stream in waiting)
        if all(priority[stream] >= highest for stream in running):
            return
        # Those that need not give way have so much, a spare one for each counted, that it is no
        # use for whoever of them would need most.
        kept = sum(num_blocks_of(each) + 1 for each in running if priority[each] >= highest)
        wanted = max(num_blocks_of(each) for each in waiting if priority[each] == highest)
        assert kept + wanted > num_blocks

    watch(arrivals, engine, runner, seen)
