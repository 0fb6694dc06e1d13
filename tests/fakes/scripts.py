"""Scripts for `FakeNeuron`: what a node says on `/generate`, and how it goes wrong."""

import asyncio
from collections.abc import AsyncIterator

from cortex_core.canonical import (
    Completed,
    Event,
    Finished,
    GenerateRequest,
    Ping,
    Started,
    TextDelta,
    Usage,
)
from tests.fakes.fake_neuron import Script

PROMPT_IDS = (11, 12, 13)
WORDS = ("How ", "are ", "you ", "to", "day?")
TEXT = "".join(WORDS)


def answer_events(request: GenerateRequest, words: tuple[str, ...] = WORDS) -> list[Event]:
    """The whole stream for `request`; token number i is word number i, for each choice."""
    deltas: list[Event] = []
    for position, word in enumerate(words):
        for index in range(request.n):
            deltas.append(TextDelta(index, word, seq=len(deltas), token_ids=(position,)))
    for index in range(request.n):
        deltas.append(Finished(index, "stop", seq=len(deltas)))
    started = Started(
        request.request_id,
        request.model,
        len(PROMPT_IDS),
        weights_id="w1",
        prompt_token_ids=PROMPT_IDS if request.want_prompt_token_ids else None,
    )
    usage = Usage(len(PROMPT_IDS), len(words) * request.n)
    first = 0 if request.continue_from is None else request.continue_from.next_seq
    return [started, *deltas[first:], Completed(usage)]


async def whole(request: GenerateRequest) -> AsyncIterator[Event]:
    """Everything, at once."""
    for event in answer_events(request):
        yield event


def breaks_after(count: int) -> Script:
    """`count` events, then the connection is reset."""

    async def script(request: GenerateRequest) -> AsyncIterator[Event]:
        for event in answer_events(request)[:count]:
            yield event
        raise ConnectionResetError

    return script


def silent_after(count: int) -> Script:
    """`count` events, then nothing for as long as the client stays."""

    async def script(request: GenerateRequest) -> AsyncIterator[Event]:
        for event in answer_events(request)[:count]:
            yield event
        await asyncio.Event().wait()

    return script


def held_after(count: int, gate: asyncio.Event) -> Script:
    """`count` events, then pings until `gate` opens, then the rest."""

    async def script(request: GenerateRequest) -> AsyncIterator[Event]:
        events = answer_events(request)
        for event in events[:count]:
            yield event
        while not gate.is_set():
            try:
                await asyncio.wait_for(gate.wait(), 0.1)
            except TimeoutError:
                yield Ping()
        for event in events[count:]:
            yield event

    return script


class Endless:
    """Words without end, as fast as the client reads.

    Attributes:
        said: how many events it got rid of, over all requests.
    """

    def __init__(self) -> None:
        self.said = 0

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[Event]:
        yield answer_events(request)[0]
        seq = 0
        while True:
            yield TextDelta(0, "word " * 1000, seq=seq, token_ids=(seq,))
            seq += 1
            self.said += 1
