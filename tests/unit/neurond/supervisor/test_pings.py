"""Answers find their questions."""

import asyncio

import pytest

from cortex_core.errors import DeviceFailed
from neurond.supervisor.pings import Pings


async def test_an_answer_is_for_its_own_question() -> None:
    pings = Pings()
    (first, one), (second, two) = pings.begin(), pings.begin()
    assert first != second

    pings.answered(second)

    assert (one.done(), two.done()) == (False, True)


async def test_answers_that_nobody_waits_for_are_dropped() -> None:
    pings = Pings()
    number, answer = pings.begin()
    pings.answered(number)
    pings.answered(number)
    pings.answered(number + 1)
    pings.end(number)
    pings.end(number)
    pings.answered(number)
    assert answer.result() is None


async def test_a_question_that_was_given_up_takes_no_answer() -> None:
    pings = Pings()
    number, answer = pings.begin()
    answer.cancel()
    pings.answered(number)
    pings.fail_all(DeviceFailed("gone"))
    assert answer.cancelled()


async def test_the_actors_death_answers_every_question_that_is_open() -> None:
    pings = Pings()
    (answered, one), (_, two), (ended, three) = pings.begin(), pings.begin(), pings.begin()
    pings.answered(answered)
    pings.end(ended)

    pings.fail_all(DeviceFailed("gone"))

    assert one.result() is None
    with pytest.raises(DeviceFailed, match="gone"):
        await asyncio.wait_for(two, 1.0)
    assert not three.done()
