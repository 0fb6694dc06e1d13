"""Formats are tried out in another process, whatever that comes to."""

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import AsyncIterator

import msgspec
import psutil
import pytest

from cortex_core.canonical import ResponseFormat
from cortex_core.errors import InvalidRequest, Overloaded
from neurond.text.format_checker import FormatChecker
from tests.fakes.waiting import wait_until_async


def format_of(**fields: object) -> bytes:
    kind = "json_schema" if "schema" in fields else "grammar" if "start" in fields else "regex"
    text = fields.get("regex") or fields.get("start")
    return msgspec.json.encode(ResponseFormat(kind, schema=fields.get("schema"), text=text))


GOOD = format_of(schema={"type": "object", "properties": {"a": {"type": "integer"}}})
LARGE = format_of(schema={"properties": {f"p{i}": {"type": "string"} for i in range(2500)}})
OTHER = format_of(regex="[a-z]+")
SLOW = format_of(schema={"type": "integer", "multipleOf": 999_983})
DEEP = format_of(start="start: r0\n" + "\n".join(f'r{i}: "a" r{i + 1}' for i in range(9000)))
CHAIN = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(4000)} | {"d4000": {}}
HARMFUL = {
    "no end of compiling": (SLOW, "takes too long to compile"),
    "rules below each other": (DEEP, "nested too deeply"),
    "references below each other": (
        format_of(schema={"$defs": CHAIN, "$ref": "#/$defs/d0"}),
        "nested too deeply",
    ),
    "wrong": (format_of(regex="(a"), "unclosed group"),
    "not supported": (format_of(schema={"type": "array", "uniqueItems": True}), "uniqueItems"),
}


OTHERS: set[psutil.Process] = set()
"""Children of this process that were there before: what other modules' fixtures keep."""


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in OTHERS]


@pytest.fixture
async def checker() -> AsyncIterator[FormatChecker]:
    OTHERS.update(psutil.Process().children())
    made = FormatChecker(max_pending=1)
    yield made
    await made.close()
    assert not children()


@pytest.mark.parametrize("name", HARMFUL)
async def test_a_format_that_does_harm_or_is_wrong_is_refused(
    checker: FormatChecker, name: str
) -> None:
    wanted, says = HARMFUL[name]
    with pytest.raises(InvalidRequest, match=says) as caught:
        await checker.check(wanted)
    assert caught.value.param == "response_format"
    await checker.check(GOOD)


async def test_a_process_takes_many_formats_right_and_wrong(checker: FormatChecker) -> None:
    await checker.check(GOOD)
    (process,) = children()
    for number in range(50):
        await checker.check(format_of(regex=f"[a-z]{{{number}}}"))
        with pytest.raises(InvalidRequest, match="unclosed group"):
            await checker.check(format_of(regex=f"({number}"))
    assert children() == [process]


@pytest.mark.parametrize("harm", [SLOW, DEEP, LARGE])
async def test_a_process_that_a_format_broke_or_left_large_is_replaced(
    checker: FormatChecker, harm: bytes
) -> None:
    await checker.check(GOOD)
    (process,) = children()
    with contextlib.nullcontext() if harm == LARGE else pytest.raises(InvalidRequest):
        await checker.check(harm)
    assert not process.is_running()
    await checker.check(OTHER)
    assert len(children()) == 1


async def test_formats_that_come_while_one_breaks_the_process_are_checked() -> None:
    checker = FormatChecker()
    wanted = [SLOW, *(format_of(regex=f"x{number}") for number in range(5)), DEEP, OTHER]
    outcomes = await asyncio.gather(*map(checker.check, wanted), return_exceptions=True)
    await checker.close()
    assert [outcome is None for outcome in outcomes] == [
        each not in (SLOW, DEEP) for each in wanted
    ]


async def test_a_refusal_is_remembered(checker: FormatChecker) -> None:
    wanted, says = HARMFUL["no end of compiling"]
    await checker.check(GOOD)
    with pytest.raises(InvalidRequest, match=says):
        await checker.check(wanted)
    await checker.check(OTHER)
    (ready,) = children()
    with pytest.raises(InvalidRequest, match=says) as caught:
        await checker.check(wanted)
    assert caught.value.param == "response_format"
    assert children() == [ready], "nothing was compiled again"


async def test_a_format_is_not_kept_whole(checker: FormatChecker) -> None:
    wanted = format_of(regex="[0-9]+")
    before = sys.getrefcount(wanted)
    await checker.check(wanted)
    assert sys.getrefcount(wanted) == before


async def test_a_process_that_went_away_before_it_was_needed_is_replaced(
    checker: FormatChecker,
) -> None:
    await checker.check(GOOD)
    (ready,) = children()
    ready.kill()
    with contextlib.suppress(Overloaded):  # nobody may have noticed yet
        await checker.check(OTHER)
    await checker.check(OTHER)
    assert ready not in children()


async def test_more_than_can_wait_are_turned_away(checker: FormatChecker) -> None:
    first = asyncio.create_task(checker.check(GOOD))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await checker.check(OTHER)
    assert caught.value.retry_after_s
    await first


async def checking_slow(checker: FormatChecker, num_checks: int) -> list[asyncio.Task[None]]:
    """Checks of one format whose trial has begun."""
    await checker.check(GOOD)
    (process,) = children()
    began_s = sum(process.cpu_times()[:2])
    checks = [asyncio.create_task(checker.check(SLOW)) for _ in range(num_checks)]
    await wait_until_async(lambda: sum(process.cpu_times()[:2]) > began_s + 0.05)
    return checks


@pytest.mark.parametrize("num_checks", [1, 2])
async def test_checks_that_are_cancelled_leave_no_process(
    checker: FormatChecker, num_checks: int
) -> None:
    checks = await checking_slow(checker, num_checks)
    (process,) = children()
    for check in checks:
        check.cancel()
    outcomes = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * num_checks
    assert not process.is_running()
    await checker.check(OTHER)


async def test_a_trial_goes_on_for_those_who_still_wait(checker: FormatChecker) -> None:
    given_up, *others = await checking_slow(checker, 3)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    for each in others:
        with pytest.raises(InvalidRequest, match="takes too long to compile"):
            await each


async def test_a_format_is_tried_anew_where_its_former_trial_is_being_ended(
    checker: FormatChecker,
) -> None:
    given_up = asyncio.create_task(checker.check(GOOD))
    await asyncio.sleep(0)
    given_up.cancel()
    again = asyncio.create_task(checker.check(GOOD))
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await again


async def no_process(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_process_that_cannot_be_started_leaves_formats_for_later(
    checker: FormatChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "create_subprocess_exec", no_process)
        with pytest.raises(Overloaded, match="Too many open files") as caught:
            await checker.check(GOOD)
    assert caught.value.retry_after_s
    await checker.check(GOOD)


async def test_a_checker_whose_process_did_not_start_can_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    checker = FormatChecker()
    with pytest.raises(Overloaded):
        await checker.check(GOOD)
    await checker.close()
