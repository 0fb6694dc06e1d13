"""What one client was sent so far, and how its stream goes on when a replica breaks. Pure.

A stream may be made of the streams of several replicas. The ledger lets through what the client
has not seen, and says how the next replica is asked: from the start while no token was sent, by
`continue_from` afterwards.
"""

import msgspec

from cortex_core.canonical import (
    Completed,
    ContinueFrom,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Loading,
    Ping,
    PromptScored,
    ReasoningDelta,
    Started,
    Usage,
)
from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    ModelNotLoaded,
    NodeUnavailable,
    Overloaded,
    ProtocolError,
    QueueFull,
    ShuttingDown,
    error_from_info,
)

MAX_ATTEMPTS = 5
"""Attempts in a row without one new token after which a request's error is the client's."""
MAX_DEVICE_DEATHS = 2
"""Devices that die under one request after which its error is the client's.

One death says nothing of a request: everything on that device breaks with it, and goes on. Who is
there at the second may well be who kills them. One that got on in between is more likely to be a
bystander, and is given a third; not more, as what kills a decode lets the prompt be computed, and a
token come, each time.
"""

_ANOTHER_MAY_DO = (
    DeviceFailed,
    ModelNotLoaded,
    NodeUnavailable,
    Overloaded,
    ProtocolError,
    QueueFull,
    ShuttingDown,
)
_NOT_BROKEN = (Overloaded, QueueFull)


class Attempts:
    """What came of one request's attempts so far, and whether another one may be made.

    A node without room costs no attempt: the fleet actor has the request wait until it may be
    asked again, and bounds that wait.

    Attributes:
        waited_s: how long nodes have had no room for the request, of the time that it may wait.
    """

    def __init__(self) -> None:
        self.waited_s = 0.0
        self._in_vain = 0
        self._deaths = 0
        self._no_room_since: float | None = None
        self._no_room: CortexError | None = None

    def failed(
        self, error: CortexError, now: float, *, began: bool = True, got_on: bool = False
    ) -> bool:
        """Count an attempt that ended with `error`; say whether another one may be made.

        `began` says that a device had taken the request, `got_on` that the attempt brought
        something new of the answer.
        """
        if got_on:
            self._in_vain = 0
        if has_no_room(error):
            if got_on or self._no_room_since is None:
                self._no_room_since = now
            self._no_room, self.waited_s = error, now - self._no_room_since
            return True
        self._no_room, self._no_room_since, self.waited_s = None, None, 0.0
        self._in_vain += not got_on
        self._deaths += began and isinstance(error, DeviceFailed)
        bounded = self._in_vain < MAX_ATTEMPTS and self._deaths < MAX_DEVICE_DEATHS + got_on
        return bounded and another_may_do(error)

    def as_told(self, error: CortexError) -> CortexError:
        """Return what the client is told of an attempt that failed, where no other is made.

        Of several devices that died it is told without a time to try again: that would go on so.
        """
        if self._deaths < MAX_DEVICE_DEATHS or not isinstance(error, DeviceFailed):
            return error
        return DeviceFailed(
            f"cannot serve the request: {self._deaths} devices died under it, at last so: "
            f"{error.message}"
        )

    def not_placed(self, error: CortexError) -> CortexError:
        """Return what the client is told when the fleet has no place for another attempt.

        That a wait was too long says less than what the node said that it waited for.
        """
        if self._no_room is not None and isinstance(error, Overloaded):
            return self._no_room
        return error


class StreamLedger:
    """One request's events, over all replicas that served it.

    Attributes:
        started: the first `Started`, once it came.
        tokens_sent: the client has something of the answer.
        completion_tokens: engine tokens in what was let through, over all choices.
        exact: every replica had the weights of the first, so the text is what one would give.
        attempts: of the request.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self.started: Started | None = None
        self.usage: Usage | None = None
        self.tokens_sent = False
        self.completion_tokens = 0
        self.exact = True
        self.attempts = Attempts()
        self._request = request
        self._reasoning_tokens = 0
        self._output_ids: list[int] = []
        self._next_seq = 0
        self._finished: set[int] = set()
        self._tokens_at_attempt = 0
        self._began = False
        self._continued = False
        self._scores_sent = 0
        self._scores_taken = 0
        """Of the prompt: those that the client has, and those that the present replica gave."""

    def next_request(self) -> GenerateRequest:
        """Return what the next replica is to be asked."""
        self._tokens_at_attempt = self.completion_tokens
        self._began = False
        self._scores_taken = 0
        if not self.tokens_sent or self.started is None:
            return self._request
        self._continued = True
        return msgspec.structs.replace(
            self._request,
            continue_from=ContinueFrom(
                prompt_token_ids=self.started.prompt_token_ids or (),
                output_token_ids=tuple(self._output_ids),
                next_seq=self._next_seq,
            ),
        )

    def take(self, event: Event) -> Event | None:
        """Return what the client is to see of `event`; None for what it has seen already.

        Raises:
            CortexError: the event is `Failed`, with that error.
            ProtocolError: a continued stream left something out.
        """
        match event:
            case Ping() | Loading():
                return event
            case Started():
                return self._take_started(event)
            case PromptScored():
                return self._take_scores(event)
            case Failed():
                raise error_from_info(event.error)
            case Completed():
                return self._complete(event.usage)
        if self._continued and event.seq != self._next_seq:
            if event.seq < self._next_seq:
                return None
            raise ProtocolError(
                f"cannot continue the stream: event {event.seq} came where {self._next_seq} was due"
            )
        self._next_seq = event.seq + 1
        self.tokens_sent = True
        if event.token_ids:
            self._count(event.token_ids, reasoning=isinstance(event, ReasoningDelta))
        if isinstance(event, Finished):
            self._finished.add(event.index)
        return event

    def _take_scores(self, event: PromptScored) -> PromptScored | None:
        """Return the scores that the client has not; another replica begins anew with them."""
        begin = self._scores_taken
        self._scores_taken += len(event.scores)
        fresh = event.scores[max(0, self._scores_sent - begin) :]
        self._scores_sent = max(self._scores_sent, self._scores_taken)
        return msgspec.structs.replace(event, scores=fresh) if fresh else None

    def used(self) -> Usage:
        """Return the tokens that the request has come to so far."""
        if self.usage is not None:
            return self.usage
        if self.started is None:
            return Usage(0, self.completion_tokens)
        prompt_tokens, cached_tokens = self.started.prompt_tokens, self.started.cached_tokens
        return Usage(prompt_tokens, self.completion_tokens, cached_tokens)

    def completed_without_saying(self) -> Completed | None:
        """Return the missing last event if all else was sent before the replica broke."""
        if len(self._finished) < self._request.n or self.started is None:
            return None
        return self._complete(None)

    def goes_on_after(self, error: CortexError, now: float) -> bool:
        """Count the attempt that ended with `error`; say whether another replica may be asked."""
        got_on = self.completion_tokens > self._tokens_at_attempt
        if not self.attempts.failed(error, now, began=self._began, got_on=got_on):
            return False
        if not self.tokens_sent:
            return True
        known = self.started is not None and self.started.prompt_token_ids is not None
        return self._request.n == 1 and known

    def _take_started(self, event: Started) -> Started | None:
        self._began = True
        if self.started is None:
            self.started = event
            return msgspec.structs.replace(event, prompt_token_ids=None)
        self.exact = self.exact and event.weights_id == self.started.weights_id
        return None

    def _count(self, token_ids: tuple[int, ...], *, reasoning: bool) -> None:
        self.completion_tokens += len(token_ids)
        if reasoning:
            self._reasoning_tokens += len(token_ids)
        if self._request.n == 1:
            self._output_ids.extend(token_ids)

    def _complete(self, usage: Usage | None) -> Completed:
        """Return the last event; a continued stream's usage is of the stream as a whole."""
        if usage is None or (self._continued and self.started is not None):
            assert self.started is not None
            usage = Usage(
                prompt_tokens=self.started.prompt_tokens,
                completion_tokens=self.completion_tokens,
                cached_tokens=self.started.cached_tokens,
                reasoning_tokens=self._reasoning_tokens,
            )
        self.usage = usage
        return Completed(usage)


def another_may_do(error: CortexError) -> bool:
    """Say whether another replica, or the same one later, may serve what failed with `error`."""
    return isinstance(error, _ANOTHER_MAY_DO)


def is_replicas_fault(error: CortexError) -> bool:
    """Say whether the fleet should look at the replica that gave `error`."""
    return another_may_do(error) and not isinstance(error, _NOT_BROKEN)


def has_no_room(error: CortexError) -> bool:
    """Say whether the node that gave `error` is full: no request has a place there.

    That it is `Overloaded` may be one request's doing, as where its image takes all the memory.
    """
    return isinstance(error, QueueFull)
