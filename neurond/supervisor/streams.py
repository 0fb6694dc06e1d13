"""One request's tokens on their way from the ring to whoever asked for them.

A `TokenStream` lives on the supervisor's loop. Its buffer is bounded without ever holding up the
ring: above `HIGH_WATER_TOKENS` the engine is told to pause this request's sequences, below
`LOW_WATER_TOKENS` to resume them. What can still arrive after the pause is what the actor had
produced by then, at most what fits the ring; every other stream goes on untouched. A reader that
takes nothing for `NODE_STALLED_S` while its sequences are held loses them: they are others' places.
"""

import asyncio
from collections import deque
from typing import Protocol

from cortex_core.errors import CortexError, Timeout
from cortex_core.lazy_timer import LazyTimer
from cortex_core.stall_watch import NODE_STALLED_S
from neurond.stream_items import ChoiceFinished, StreamItem, Token

HIGH_WATER_TOKENS = 256
LOW_WATER_TOKENS = 64
MOST_TAKEN_TOKENS = 64
_OF_CHOICE = (Token, ChoiceFinished)


class StreamControl(Protocol):
    """What a stream asks of the actor that feeds it. None of it blocks or fails."""

    def pause(self, choice: int) -> None: ...

    def resume(self, choice: int) -> None: ...

    def finish(self, choice: int) -> None: ...

    def cancel(self) -> None: ...


class TokenStream:
    """One request's items: `NotHeld` if it is so, `Admitted`, `Adopted` if more of its prompt was
    found, then tokens and finishes of its choices; or `Admitted`, then vectors and the finish of
    the only choice.

    One reader calls `take` until the stream has `ended`, which it has when the last choice has,
    and at once after `cancel`. Whoever leaves it earlier has to `cancel` it, else the engine goes
    on until the buffer is full and then holds the sequences paused.
    """

    def __init__(self, n: int, control: StreamControl) -> None:
        self._control = control
        self._open = set(range(n))
        self._items: deque[StreamItem] = deque()
        self._error: CortexError | None = None
        self._paused = False
        self._untouched_since: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: LazyTimer | None = None

    async def take(self, timeout_s: float) -> list[StreamItem]:
        """Return what is buffered, `MOST_TAKEN_TOKENS` at most; if nothing is, wait for an item.

        Empty if nothing came within `timeout_s`, and once the stream has `ended`. Cancelling loses
        no item. What a call returns is the reader's work until its next call, so sequences that are
        held go on with that one: a reader slower than the engine would otherwise be handed more
        each time, up to the whole answer.

        Raises:
            DeviceFailed: the actor died or hung; what it sent before was taken.
            Timeout: nothing was taken for `NODE_STALLED_S`.
            CortexError: the engine failed this request.
        """
        self._untouched_since = None
        self._resume_if_low()
        if not self._items and self._open:
            await self._wait(timeout_s)
        if not self._items and self._error is not None:
            raise self._error
        return [self._items.popleft() for _ in range(min(len(self._items), MOST_TAKEN_TOKENS))]

    @property
    def ended(self) -> bool:
        """Whether there is nothing to take any more, not even an error."""
        return not (self._items or self._open or self._error)

    @property
    def buffered_tokens(self) -> int:
        """Items that wait to be taken."""
        return len(self._items)

    @property
    def paused(self) -> bool:
        """Whether the engine was told to hold this request."""
        return self._paused

    def finish_choice(self, index: int) -> None:
        """End a choice early, as a stop string matched. Nothing more of it is delivered.

        The engine may have ended it meanwhile; what is buffered of it goes all the same.
        """
        self._items = deque(item for item in self._items if not _belongs(item, index))
        if index in self._open:
            self._open.discard(index)
            self._control.finish(index)
        self._resume_if_low()
        self._wake()

    def cancel(self) -> None:
        """Stop generating within one engine step and end the stream. Idempotent."""
        if self._open and self._error is None:
            self._control.cancel()
        self._open.clear()
        self._items.clear()
        self._error = None
        self._paused = False
        self._wake()

    def deliver(self, item: StreamItem) -> None:
        """Take an item from the actor. Called by the actor's handle only."""
        wanted = item.index in self._open if isinstance(item, _OF_CHOICE) else bool(self._open)
        if not wanted:
            return
        self._items.append(item)
        if isinstance(item, ChoiceFinished):
            self._open.discard(item.index)
        if not self._paused and len(self._items) > HIGH_WATER_TOKENS:
            self._set_paused(True)
        self._wake()

    def fail(self, error: CortexError) -> None:
        """End the stream with `error` behind what is buffered. Called by the handle only."""
        if self._open:
            self._open.clear()
            self._error = error
            self._paused = False
            self._wake()

    def tick(self, now: float) -> None:
        """Give up a reader that has stopped. Called by the handle only, several times a minute."""
        if not (self._paused and self._open):
            self._untouched_since = None
        elif self._untouched_since is None:
            self._untouched_since = now
        elif now - self._untouched_since >= NODE_STALLED_S:
            self._control.cancel()
            cause = f"nothing of the answer was read for {NODE_STALLED_S:g} s"
            self.fail(Timeout(f"cannot go on: {cause}"))

    def _resume_if_low(self) -> None:
        if self._paused and len(self._items) < LOW_WATER_TOKENS:
            self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused
        for index in sorted(self._open):
            if paused:
                self._control.pause(index)
            else:
                self._control.resume(index)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wait(self, timeout_s: float) -> "asyncio.Future[None]":
        """Return what is done once something has changed, or the time is over."""
        assert self._waiter is None or self._waiter.done(), "a TokenStream has one reader"
        self._waiter = asyncio.get_running_loop().create_future()
        if self._timer is None:
            self._timer = LazyTimer(self._wake)
        self._timer.start(timeout_s)
        return self._waiter


def _belongs(item: StreamItem, index: int) -> bool:
    return isinstance(item, _OF_CHOICE) and item.index == index
