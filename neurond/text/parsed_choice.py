"""One choice whose text is taken apart: tokens to deltas of answer, thoughts and calls. Pure.

Each token leads to at least one event, the first of which has its id, so that a stream can be
continued from any event on. A call is announced when it is certain: what a model began to write and
what turned out to be no call comes as text. A call that the answer's end cuts off stays open.
"""

from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from cortex_core.canonical import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
)
from cortex_core.ids import RequestId
from neurond.engine.triggers import Triggers, TriggerWatch
from neurond.stream_items import Token
from neurond.text.detokenizer import Detokenizer
from neurond.text.parsing.parser import AnswerParser, joined
from neurond.text.parsing.segments import (
    CallArguments,
    CallBegun,
    CallEnded,
    Reasoning,
    Segment,
    Text,
)
from neurond.text.pieces import TokenPieces
from neurond.text.stops import StopMatcher
from neurond.text.visible_tokens import VisibleTokens

Delta = TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | Finished
CALL_ID_BYTES = 12


class Parsing(NamedTuple):
    """How the choices of a request are taken apart."""

    request_id: RequestId
    pieces: TokenPieces
    """With the markers of the model's format as text."""
    parsers: Sequence[AnswerParser]
    """Fresh, one for each choice."""
    parallel_calls: bool
    """Otherwise a choice ends with its first call."""
    triggers: Triggers | None = None
    """Behind which tokens the device holds calls, where it does not hold the whole answer."""


class ParsedChoice:
    """Takes the tokens of a choice.

    Args:
        index: of the choice.
        parsing: of the request.
        stops: texts that end the answer where they stand in what is visible of it.
        ends: ids that end it.
        take_number: gives each event its number.
    """

    def __init__(
        self,
        index: int,
        parsing: Parsing,
        stops: Sequence[str],
        ends: Collection[int],
        take_number: Callable[[], int],
    ) -> None:
        self.index = index
        self.num_tokens = 0
        self.num_reasoning_tokens = 0
        self.finished = False
        self._parsing = parsing
        self._parser = parsing.parsers[index]
        self._watch = TriggerWatch(parsing.triggers) if parsing.triggers is not None else None
        self._detokenizer = Detokenizer(parsing.pieces)
        self._stops = StopMatcher(stops)
        self._ends = ends
        self._take_number = take_number
        self._num_calls = 0
        self._in_call = False
        self._unsent: tuple[int, ...] = ()
        """An end token that was fed; it goes out with `Finished`."""
        self._stop_texts = tuple(stops)
        self._looked_at_chars = 0
        self._stopped = False
        """A stop string has ended it."""
        self._behind_stop = False
        """A stop string stands in what may turn out to be text."""
        self._visible = VisibleTokens()
        """Those with log probabilities."""
        self._sent_chars = 0
        """Characters of the visible text that went out."""
        self._withheld: list[int] = []
        """Tokens behind it, of which nobody hears: where it was text, they are not counted."""

    def free_calls(self) -> None:
        """See `RequestOutput.free_calls`."""
        self._watch = None

    def ends_at(self, token_id: int) -> bool:
        return token_id in self._ends

    def feed(self, token: Token) -> list[Delta]:
        self.num_tokens += 1
        token_ids = (*self._unsent, token.token_id)
        self._unsent = ()
        if self.ends_at(token.token_id):
            self._unsent = token_ids
            return []
        start = self._parser.fed_chars
        triggers = self._watch is not None and self._watch.takes(token.token_id)
        text = self._detokenizer.push(token.token_id)
        segments = self._parser.push(text, triggers=triggers)
        if token.logprob is not None:
            # Of a character whose bytes are not all there it is a part nonetheless.
            more = self._detokenizer.holds_bytes
            self._visible.add(token, start, self._parser.fed_chars + more)
        self._see()
        events = self._events(segments)
        if self._behind_stop:
            self._withheld += token_ids
            if not events and self._parser.held_chars:
                return []
            token_ids = self._released()
        self._behind_stop = self._holds_stop()
        events = events or [self._silent()]
        return [self._carrying(events[0], token_ids), *events[1:]]

    def finish(self, reason: FinishReason) -> list[Delta]:
        segments = self._parser.push(self._detokenizer.flush())
        segments += self._parser.flush(cut=reason != "stop")
        self._see()
        events = self._events(joined(segments), "cancelled" if reason == "stop" else reason)
        self._withheld += self._unsent
        token_ids = self._released()
        if self.finished:
            return [*events[:-1], msgspec.structs.replace(events[-1], token_ids=token_ids)]
        self._flush_stops(events)
        if reason == "stop" and self._num_calls:
            reason = "tool_calls"
        return [*events, self._finished(reason, token_ids)]

    def _see(self) -> None:
        """Note which tokens turned out to be visible, or not."""
        for places in self._parser.shown:
            self._visible.show(places)
        if self._visible.is_unsure:
            self._visible.decide(self._parser.decided_chars, in_prose=self._parser.in_prose)

    def _holds_stop(self) -> bool:
        """Whether a stop string stands in what may yet be text, as far as it was not looked at."""
        held_chars = self._parser.held_chars
        if not self._stop_texts or not held_chars or self.finished:
            self._looked_at_chars = 0
            return False
        longest = max(map(len, self._stop_texts))
        start = max(0, min(self._looked_at_chars, held_chars) - longest + 1)
        self._looked_at_chars = held_chars
        before = "" if start else self._stops.held
        text = before + self._parser.held(start)
        return any(stop in text for stop in self._stop_texts)

    def _released(self) -> tuple[int, ...]:
        """Return the tokens that were withheld; none, and they do not count, behind an end."""
        token_ids, self._withheld = tuple(self._withheld), []
        was_behind, self._behind_stop = self._behind_stop, False
        if not (was_behind and self._stopped):
            return token_ids
        self.num_tokens -= len(token_ids)
        return ()

    def _events(
        self, segments: list[Segment], breaks_off: FinishReason = "cancelled"
    ) -> list[Delta]:
        """Return the events of segments, up to the one that ends the choice if one does.

        `breaks_off` is why a call that is not whole is not.
        """
        events: list[Delta] = []
        for segment in segments:
            match segment:
                case Text(text):
                    text, stop = self._stops.push(text)
                    if text:
                        events.append(self._visible_text(text))
                    if stop is not None:
                        self._stopped = True
                        # Clients run calls by the reason alone.
                        if self._num_calls:
                            return [*events, self._finished("tool_calls", ())]
                        return [*events, self._finished("stop", (), stop)]
                case Reasoning(text):
                    self._flush_stops(events)
                    events.append(ReasoningDelta(self.index, text, self._take_number()))
                case CallBegun(name):
                    self._flush_stops(events)
                    events.append(self._call_started(name))
                case CallArguments(text):
                    events.append(self._more_arguments(text))
                case CallEnded(is_whole):
                    self._in_call = False
                    if not is_whole or not self._parsing.parallel_calls:
                        reason = "tool_calls" if is_whole else breaks_off
                        return [*events, self._finished(reason, ())]
        return events

    def _call_started(self, name: str) -> ToolCallStarted:
        number = self._num_calls
        self._num_calls += 1
        self._in_call = True
        id_ = call_id(self._parsing.request_id, self.index, number)
        return ToolCallStarted(self.index, number, id_, name, self._take_number())

    def _more_arguments(self, text: str) -> ToolCallDelta:
        return ToolCallDelta(self.index, self._num_calls - 1, text, self._take_number())

    def _flush_stops(self, events: list[Delta]) -> None:
        held = self._stops.flush()
        last = events[-1] if events else None
        if held and isinstance(last, TextDelta):
            # One event: what a choice's end sets free has a number, but no token of its own.
            logprobs = last.logprobs + self._logprobs_of_sent(held)
            text = last.text + held
            events[-1] = msgspec.structs.replace(last, text=text, logprobs=logprobs)
        elif held:
            events.append(self._visible_text(held))

    def _silent(self) -> Delta:
        if self._in_call:
            return self._more_arguments("")
        if self._parser.thinks:
            return ReasoningDelta(self.index, "", self._take_number())
        return self._visible_text("")

    def _visible_text(self, text: str) -> TextDelta:
        logprobs = self._logprobs_of_sent(text)
        return TextDelta(self.index, text, self._take_number(), logprobs=logprobs)

    def _logprobs_of_sent(self, text: str) -> tuple[TokenLogprob, ...]:
        """Return the log probabilities of tokens that are visible in `text`, which goes out now."""
        self._sent_chars += len(text)
        tokens = self._visible.take(self._sent_chars)
        if not tokens:
            return ()
        return tuple(each for token in tokens for each in logprobs_of(token, self._parsing.pieces))

    def _carrying(self, event: Delta, token_ids: tuple[int, ...]) -> Delta:
        if isinstance(event, ReasoningDelta):
            self.num_reasoning_tokens += len(token_ids)
        return msgspec.structs.replace(event, token_ids=token_ids)

    def _finished(
        self, reason: FinishReason, token_ids: tuple[int, ...], stop: str | None = None
    ) -> Finished:
        self.finished = True
        return Finished(self.index, reason, stop, self._take_number(), token_ids)


def is_silent(event: Event) -> bool:
    """Whether a client is told nothing by an event."""
    match event:
        case TextDelta(text=text, logprobs=logprobs):
            return not text and not logprobs
        case ReasoningDelta(text=text) | ToolCallDelta(arguments=text):
            return not text
        case _:
            return False


def call_id(request_id: RequestId, index: int, number: int) -> str:
    """Return a call's id: unique, and the same again when a stream is continued elsewhere."""
    name = f"{request_id}/{index}/{number}".encode()
    return f"call_{blake2b(name, digest_size=CALL_ID_BYTES).hexdigest()}"


def logprobs_of(token: Token, pieces: TokenPieces) -> tuple[TokenLogprob, ...]:
    """Return what a token's event says of its probability; empty where that was not asked for."""
    if token.logprob is None:
        return ()
    top = tuple(token_logprob(id_, value, pieces) for id_, value in token.top)
    return (token_logprob(token.token_id, token.logprob, pieces, top),)


def token_logprob(
    token_id: int, logprob: float, pieces: TokenPieces, top: tuple[TokenLogprob, ...] = ()
) -> TokenLogprob:
    """Return a token's log probability with what it is as text."""
    raw = pieces.content(token_id)
    text = raw.decode("utf-8", "replace")
    return TokenLogprob(token_id, text, logprob, top, raw if "\ufffd" in text else None)
