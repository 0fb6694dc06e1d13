"""Tokens of a request to canonical events: text, stop strings, numbering, replay. Pure.

Every token leads to the same events whenever it is fed, and each event is numbered; so replaying
the tokens of a stream that was cut anywhere gives its exact state, and the events that were not
sent yet. One token gives one `TextDelta`, maybe with empty text, except the one that ends the
choice without text of its own: that one stands in `Finished`.
"""

from collections.abc import Sequence

from cortex_core.canonical import (
    Event,
    Finished,
    FinishReason,
    SamplingParams,
    TextDelta,
    TokenLogprob,
)
from neurond.stream_items import Token
from neurond.text.detokenizer import Detokenizer
from neurond.text.parsed_choice import Delta, ParsedChoice, Parsing, logprobs_of
from neurond.text.pieces import TokenPieces
from neurond.text.stops import StopMatcher


class RequestOutput:
    """All choices of one request.

    Args:
        pieces: of the model's tokenizer.
        sampling: for stop strings, stop ids and `ignore_eos`.
        eos_token_ids: ids that end the model's answer.
        n: number of choices.
        first_seq: events with a lower number are made but not returned; they were sent earlier.
        parsing: None where the text is the answer, as it is.
    """

    def __init__(
        self,
        pieces: TokenPieces,
        sampling: SamplingParams,
        eos_token_ids: Sequence[int],
        *,
        n: int = 1,
        first_seq: int = 0,
        parsing: Parsing | None = None,
    ) -> None:
        ends = set(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            ends.update(eos_token_ids)
        self._numbers = _Numbers(first_seq)
        self._choices: list[_Choice | ParsedChoice] = [
            _Choice(index, pieces, sampling.stop, ends, self._numbers)
            if parsing is None
            else ParsedChoice(index, parsing, sampling.stop, ends, self._numbers.take)
            for index in range(n)
        ]

    @property
    def completion_tokens(self) -> int:
        """Tokens consumed over all choices; what came after a choice's end is not among them."""
        return sum(choice.num_tokens for choice in self._choices)

    @property
    def reasoning_tokens(self) -> int:
        """Those of them that are thoughts."""
        return sum(choice.num_reasoning_tokens for choice in self._choices)

    @property
    def next_seq(self) -> int:
        """The number that the next event gets."""
        return self._numbers.next

    def is_finished(self, index: int) -> bool:
        """Whether the choice has had its `Finished`."""
        return self._choices[index].finished

    @property
    def all_finished(self) -> bool:
        return all(choice.finished for choice in self._choices)

    def feed(self, token: Token) -> Sequence[Event]:
        """Take a token. A `Finished` among the events means that a stop string is complete.

        Tokens for a finished choice are ignored.
        """
        choice = self._choices[token.index]
        return [] if choice.finished else self._numbers.wanted(choice.feed(token))

    def free_calls(self) -> None:
        """No call is held that comes from now on, whatever triggers it; see `Parsing.triggers`."""
        for choice in self._choices:
            if isinstance(choice, ParsedChoice):
                choice.free_calls()

    def finish(self, index: int, reason: FinishReason) -> Sequence[Event]:
        """End a choice as the engine did; withheld text comes first. Ignored if it has ended."""
        choice = self._choices[index]
        return [] if choice.finished else self._numbers.wanted(choice.finish(reason))

    def ends_at(self, token_id: int) -> bool:
        """Whether this token ends an answer."""
        return self._choices[0].ends_at(token_id)


class _Numbers:
    """Numbers events over all choices of a request."""

    def __init__(self, first_wanted: int) -> None:
        self.next = 0
        self._first_wanted = first_wanted

    def take(self) -> int:
        number = self.next
        self.next += 1
        return number

    def wanted(self, events: Sequence[Delta]) -> Sequence[Event]:
        """Return those of `events`, which are numbered on, that were not sent earlier."""
        if not events or events[0].seq >= self._first_wanted:
            return events
        return [event for event in events if event.seq >= self._first_wanted]


class _Choice:
    num_reasoning_tokens = 0

    def __init__(
        self,
        index: int,
        pieces: TokenPieces,
        stops: Sequence[str],
        ends: set[int],
        numbers: _Numbers,
    ) -> None:
        self.index = index
        self.num_tokens = 0
        self.finished = False
        self._pieces = pieces
        self._detokenizer = Detokenizer(pieces)
        self._has_stops = any(stops)
        self._stops = StopMatcher(stops)
        self._ends = ends
        self._numbers = numbers
        self._unsent: tuple[int, ...] = ()
        """An end token that was fed; it goes out with `Finished`."""

    def ends_at(self, token_id: int) -> bool:
        return token_id in self._ends

    def feed(self, token: Token) -> list[TextDelta | Finished]:
        self.num_tokens += 1
        token_ids = (*self._unsent, token.token_id)
        self._unsent = ()
        if token.token_id in self._ends:
            self._unsent = token_ids
            return []
        text = self._detokenizer.push(token.token_id)
        logprobs = () if token.logprob is None else logprobs_of(token, self._pieces)
        stop: str | None = None
        # What most requests do without is not touched: between two steps all code is cold.
        if self._has_stops:
            text, stop = self._stops.push(text)
        if stop is None:
            return [self._delta(text, token_ids, logprobs)]
        events: list[TextDelta | Finished] = []
        if text:
            events.append(self._delta(text, token_ids, logprobs))
            token_ids = ()
        return [*events, self._finished("stop", token_ids, stop)]

    def finish(self, reason: FinishReason) -> list[TextDelta | Finished]:
        events: list[TextDelta | Finished] = []
        text, stop = self._stops.push(self._detokenizer.flush())
        if stop is not None:
            reason = "stop"
        else:
            text += self._stops.flush()
        if text:
            events.append(self._delta(text, (), ()))
        return [*events, self._finished(reason, self._unsent, stop)]

    def _delta(
        self, text: str, token_ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...]
    ) -> TextDelta:
        return TextDelta(self.index, text, self._numbers.take(), token_ids, logprobs)

    def _finished(
        self, reason: FinishReason, token_ids: tuple[int, ...], stop: str | None
    ) -> Finished:
        self.finished = True
        return Finished(self.index, reason, stop, self._numbers.take(), token_ids)
