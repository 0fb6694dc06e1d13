"""From the plan of an answer to the format that the device gets, tried out on the way.

Schemas of tools that are not strict promise nothing: those that cannot be held to are loosened.
"""

import time
from collections.abc import Callable, Collection
from typing import Final

from cortex_core.canonical import ResponseFormat
from cortex_core.errors import CortexError, InvalidRequest, Overloaded
from neurond.text.answer_plan import AnswerPlan, about_tools
from neurond.text.format_checker import FormatChecker
from neurond.text.formats import encoded_format
from neurond.text.pool import TextPool

MAX_APART: Final = 16
"""Trials that look for the tools of one request that cannot be held to, each 0.15 s where it is
new; what is not found by then is loosened."""
MAX_APART_S: Final = 3.0
"""As long as that for all of them: one that takes all of its own time keeps others waiting."""
Trial = Callable[[Collection[str]], ResponseFormat | None]


class FormatTrials:
    """Finds out what answers can be held to. Lives on the daemon's loop.

    Args:
        checker: tries formats out, and remembers them.
        pool: makes grammars.
        now: seconds, of a clock that does not go back.
    """

    def __init__(
        self, checker: FormatChecker, pool: TextPool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._checker = checker
        self._pool = pool

    async def format_of(self, plan: AnswerPlan) -> bytes | None:
        """Return the plan's format, as JSON, with as few tools loosened as need be.

        Calls that may be, of tools that are not strict, lead to no error: where there is no time
        for their schemas they are held to their syntax, and where that cannot be, to nothing.

        Raises:
            InvalidRequest: what the client asked to be kept to cannot be.
            Overloaded: there was no time to try it.
        """
        if plan.held_calls.triggers is None:
            return await self._tried(plan)
        try:
            return await self._tried_or_loose(plan)
        except CortexError:
            return None

    async def _tried_or_loose(self, plan: AnswerPlan) -> bytes | None:
        try:
            return await self._tried(plan)
        except Overloaded:
            # Nothing of it but names is the client's, so it needs no trial.
            loosest = await self._loosened(plan, _loose_names(plan))
            return encoded_format(loosest.response_format)

    async def _tried(self, plan: AnswerPlan) -> bytes | None:
        await self._try(plan.asked)
        try:
            return await self._take(plan)
        except InvalidRequest as ex:
            if plan.apart is None:
                raise _blamed(ex, plan) from ex
        try:
            misfits = await self._misfits(plan.apart, _loose_names(plan))
            return await self._take(await self._loosened(plan, misfits))
        except InvalidRequest:
            loosest = await self._loosened(plan, _loose_names(plan))
        try:
            return await self._take(loosest)
        except InvalidRequest as ex:
            raise _blamed(ex, plan) from ex

    async def _misfits(self, apart: Trial, names: list[str]) -> list[str]:
        """Return which of the tools cannot be held to, by halves; all where it is not the tools.

        Raises:
            InvalidRequest: it is the strict ones.
        """
        await self._try(await self._pool.run(lambda: apart(())))
        misfits: list[str] = []
        groups = [names]
        left, until = MAX_APART, self._now() + MAX_APART_S
        while groups:
            group = groups.pop()
            if len(group) == 1 or left < 2 or self._now() > until:
                misfits += group
                continue
            left -= 2
            half = len(group) // 2
            halves = (group[:half], group[half:])
            groups += [part for part in halves if not await self._can_be_held(apart, part)]
        return misfits or names

    async def _can_be_held(self, apart: Trial, names: list[str]) -> bool:
        try:
            await self._try(await self._pool.run(lambda: apart(names)))
        except InvalidRequest:
            return False
        return True

    async def _take(self, plan: AnswerPlan) -> bytes | None:
        await self._try(plan.trial)
        return encoded_format(plan.response_format)

    async def _try(self, wanted: ResponseFormat | None) -> None:
        encoded = encoded_format(wanted)
        if encoded is not None:
            await self._checker.check(encoded)

    async def _loosened(self, plan: AnswerPlan, names: list[str]) -> AnswerPlan:
        loosened = plan.loosened
        assert loosened is not None, "not all tools are strict"
        return await self._pool.run(lambda: loosened(names))


def _loose_names(plan: AnswerPlan) -> list[str]:
    return [tool.name for tool in plan.held_tools if not tool.strict]


def _blamed(error: InvalidRequest, plan: AnswerPlan) -> InvalidRequest:
    """Return the error in the client's words."""
    strict = [tool for tool in plan.held_tools if tool.strict]
    return about_tools(error, strict) if plan.held_tools else error
