"""Which turns of a conversation are left out where it is longer than the context. Pure."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from cortex_core.canonical import (
    ChatPrompt,
    Message,
    SamplingParams,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.errors import InvalidRequest

_STAY: Final = ("system", "developer")
MAX_REFUSED: Final = 8
"""Conversations in a row that the template may refuse, before it is taken to refuse them all."""


TRUNCATED_ROOM: Final = 4
"""A conversation that is cut to the context leaves a quarter of that to the answer, or less where
the answer may not have as much."""


def most_tokens(sampling: SamplingParams, context: int) -> int:
    """Return the most tokens of an answer, were the prompt empty."""
    return context if sampling.max_tokens is None else min(sampling.max_tokens, context)


def cut_ids(
    prompt: ChatPrompt,
    context: int,
    answer_tokens: int,
    token_ids: Callable[[ChatPrompt], list[int]],
) -> list[int] | None:
    """Return the ids of as much of a conversation's end as fits, None where no end does.

    Args:
        prompt: too long as it is.
        context: the most tokens of prompt and answer together.
        answer_tokens: the most that the answer may have; room is left for them, within reason.
        token_ids: renders a prompt; see `shortened`.
    """
    room = min(answer_tokens, context // TRUNCATED_ROOM)

    def count(each: ChatPrompt) -> int:
        return len(token_ids(each))

    for most in (context - max(room, 1), context - 1):
        short = shortened(prompt, most_tokens=most, count=count)
        if short is not None:
            return token_ids(short)
    return None


def shortened(
    prompt: ChatPrompt, *, most_tokens: int, count: Callable[[ChatPrompt], int]
) -> ChatPrompt | None:
    """Return the conversation without the oldest turns, as many as it takes; None if none will do.

    System turns stay, and the last turn does. A call and its result stay or go together. What is
    kept begins with a turn of the user wherever that is short enough, as many templates want it.

    Args:
        prompt: too long as it is.
        most_tokens: that the prompt may have.
        count: gives the tokens of a prompt; it may raise `InvalidRequest` for one whose turns do
            not stand as the template wants them.
    """
    places = _cuts(prompt.messages)
    users = [place for place in places if prompt.messages[place].role == "user"]

    def tokens(place: int) -> int | None:
        try:
            return count(_without(prompt, place))
        except InvalidRequest:
            return None

    for candidates in (users, places):
        first = bisect_left(candidates, True, key=lambda place: (tokens(place) or 0) <= most_tokens)
        for place in candidates[first : first + MAX_REFUSED]:
            # Behind one that the template refuses may stand one that is too long.
            num_tokens = tokens(place)
            if num_tokens is not None and num_tokens <= most_tokens:
                return _without(prompt, place)
    return None


def _without(prompt: ChatPrompt, place: int) -> ChatPrompt:
    kept = tuple(
        message
        for number, message in enumerate(prompt.messages)
        if number >= place or message.role in _STAY
    )
    return msgspec.structs.replace(prompt, messages=kept)


def _cuts(messages: Sequence[Message]) -> list[int]:
    """Return the places before which everything can be left out, the first one excepted."""
    results: defaultdict[str, list[int]] = defaultdict(list)
    for number, message in enumerate(messages):
        for part in message.content:
            if isinstance(part, ToolResultPart):
                results[part.call_id].append(number)
    cuts: list[int] = []
    answered = -1
    for number, message in enumerate(messages):
        if message.role in ("user", "assistant") and number > answered:
            cuts.append(number)
        for part in message.content:
            if isinstance(part, ToolCallPart):
                # Some clients give calls the same ids again in each turn: the next one is meant.
                places = results[part.id]
                following = bisect_left(places, number)
                if following < len(places):
                    answered = max(answered, places[following])
    return cuts[1:]
