"""From what an engine says of one request to its events. Pure, but for the time between them."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from cortex_core.canonical import Completed, Event, GenerateRequest, Ping, Started, Usage
from cortex_core.errors import InternalError
from neurond.metrics import RequestMeter
from neurond.prompt_tokens import PromptTokens
from neurond.stream_items import (
    Admitted,
    Adopted,
    ChoiceFinished,
    NotHeld,
    PromptToken,
    StreamItem,
    Token,
)
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.streams import TokenStream
from neurond.text.output import RequestOutput
from neurond.text.parsed_choice import is_silent
from neurond.text.pieces import TokenPieces
from neurond.text.prompt_scores import PromptScores


class PreparedRequest(NamedTuple):
    """A request in token ids, checked; `job` is None where the replay has ended it already."""

    prompt: PromptTokens
    job: EngineJob | None
    output: RequestOutput
    replayed: list[Event]
    weights_id: str | None
    pieces: TokenPieces
    speaks_at_once: bool
    """Each token has its text; none waits for what follows it."""


class Answer:
    """Turns what the engine says of one request into events."""

    def __init__(
        self,
        request: GenerateRequest,
        prepared: PreparedRequest,
        meter: RequestMeter,
        ping_interval_s: float,
    ) -> None:
        self._ping_interval_s = ping_interval_s
        self._spoke_s = time.monotonic()
        self._request = request
        self._prepared = prepared
        self._output = prepared.output
        self._meter = meter
        self._cached_tokens = 0
        self._scores = PromptScores(request, prepared.pieces)

    def take(self, items: list[StreamItem], stream: TokenStream) -> list[Event]:
        """Return the events of items; ends choices on `stream` whose stop string matched."""
        events: list[Event] = []
        computes_only = self._request.sampling.max_tokens == 0
        for item in items:
            if isinstance(item, PromptToken):
                self._scores.take(item)
                continue
            events += self._scores.told()
            match item:
                case Token():
                    events += [] if computes_only else self._token(item, stream)
                case Admitted(cached_tokens):
                    events += self.admitted(cached_tokens)
                case Adopted(cached_tokens):
                    self._found(cached_tokens)
                case NotHeld():
                    self._output.free_calls()
                case ChoiceFinished(index, reason):
                    # What ended is the token that nobody asked for.
                    events += self._output.finish(index, "length" if computes_only else reason)
        events += self._scores.told()
        return events if self._prepared.speaks_at_once else self._with_ping(events)

    def _with_ping(self, events: list[Event]) -> list[Event]:
        """Add a `Ping` where what is being written may be a call, and so cannot be told yet."""
        now_s = time.monotonic()
        if not all(is_silent(event) for event in events):
            self._spoke_s = now_s
        elif now_s - self._spoke_s >= self._ping_interval_s:
            self._spoke_s = now_s
            events.append(Ping())
        return events

    def _token(self, token: Token, stream: TokenStream) -> Sequence[Event]:
        if self._output.is_finished(token.index):
            return []
        self._meter.token()
        events = self._output.feed(token)
        if self._output.is_finished(token.index):
            stream.finish_choice(token.index)
        return events

    def admitted(self, cached_tokens: int) -> list[Event]:
        """Return the stream's begin, and what a replay left to say."""
        self._found(cached_tokens)
        ids = self._prepared.prompt.ids
        started = Started(
            request_id=self._request.request_id,
            model=self._request.model,
            prompt_tokens=len(ids),
            cached_tokens=cached_tokens,
            weights_id=self._prepared.weights_id,
            prompt_token_ids=tuple(ids) if self._request.want_prompt_token_ids else None,
        )
        return [started, *self._scores.first(ids), *self._prepared.replayed]

    def _found(self, cached_tokens: int) -> None:
        self._meter.cached(cached_tokens - self._cached_tokens)
        self._cached_tokens = cached_tokens

    def completed(self) -> Completed:
        """Return the stream's end.

        Raises:
            InternalError: not every choice has ended.
        """
        if not self._output.all_finished:
            raise InternalError("cannot finish the answer: the engine ended it early")
        tokens = self._output.completion_tokens
        self._meter.completed(tokens)
        prompt_tokens = len(self._prepared.prompt.ids)
        thoughts = self._output.reasoning_tokens
        return Completed(Usage(prompt_tokens, tokens, self._cached_tokens, thoughts))
