"""The text of one answer to its segments. Pure.

The common shape of an answer: thoughts between two markers, at its beginning or between calls;
prose; calls, each behind a marker or, where a format has none, at the beginning. What looks like a
call and is none is prose. A call is told when it is whole; where a grammar lets nothing but a call
come, as soon as it is certain, its arguments as they come. Blanks between prose and a marker, and
behind one, are no prose.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

from cortex_core.canonical import Tool
from neurond.engine.triggers import Triggers
from neurond.text.parsing.call_sink import CallSink
from neurond.text.parsing.lark import Lark, Written
from neurond.text.parsing.reader import Markers, Reader, Steps
from neurond.text.parsing.segments import (
    CallArguments,
    CallBegun,
    CallSegment,
    Malformed,
    Reasoning,
    Segment,
    Text,
    Tools,
)

Places = Sequence[int]
"""Of each character of a text, the number that it has in the whole answer."""


class ReasoningMarks(NamedTuple):
    """What stands around thoughts."""

    opens: str
    closes: str
    label: str = ""
    """Stands behind `opens` and is no thought."""
    drops: tuple[str, ...] = ()
    """Stand around the answer proper and are no part of it."""


class HeldCalls(NamedTuple):
    """Where a grammar holds an answer's calls, so that none can turn out to be text."""

    all: bool = False
    """Behind thoughts there is nothing but calls."""
    openers: frozenset[str] = frozenset()
    """It is, wherever one of these stands."""
    first: bool = False
    """It is where the answer begins with a call without an opener."""
    triggers: Triggers | None = None
    """It is behind openers that are these tokens, and nowhere else."""


NOT_HELD: Final = HeldCalls()


class CallFormat(Protocol):
    """How a family of models writes calls."""

    @property
    def openers(self) -> tuple[str, ...]:
        """What calls begin with."""

    @property
    def markers(self) -> frozenset[str]:
        """All that may be a special token, openers included."""

    @property
    def bare(self) -> str:
        """Characters that a call without an opener can begin with."""

    def read(self, opener: str | None, reader: Reader, tools: Tools, sink: CallSink) -> Steps[None]:
        """Read calls behind `opener`, or bare ones from their first character on.

        Raises:
            Malformed: what follows is none, or not the rest of the call that was begun.
        """

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """Return how calls of `tools` are written, as a grammar."""


class AnswerParser(ABC):
    """Takes text as it comes; gives segments. The same segments, joined, however it was cut.

    Args:
        hidden: special tokens among the markers; they are never part of a text.
        keep_blanks: give out blanks at once, also where a marker may follow.
    """

    def __init__(self, hidden: Collection[str], *, keep_blanks: bool) -> None:
        self._reader = Reader()
        self._sink = CallSink(self._reader, self._say_call)
        self._hidden = hidden
        self._keep_blanks = keep_blanks
        self._segments: list[Segment] = []
        self._blank = ""
        self._blank_places: list[int] = []
        self._shown: list[Places] = []
        self._behind_marker = False
        self._thinks = False
        self._cut = False
        self._triggered: set[int] = set()
        """Characters behind which a grammar began to hold a call."""
        self._run = self._answer()
        next(self._run, None)

    @property
    def thinks(self) -> bool:
        """Whether the model is thinking where the text ends."""
        return self._thinks

    @property
    def in_prose(self) -> bool:
        """Whether the text ends in the visible answer rather than in thoughts or in a call."""
        return not self._thinks and not self._reader.is_marked

    @property
    def held_chars(self) -> int:
        """Characters that have come and may turn out to be text or a call."""
        return 0 if self._sink.is_telling else self._reader.held_chars

    def held(self, place: int) -> str:
        """Return those of them from number `place` on."""
        return self._reader.held(place)

    @property
    def fed_chars(self) -> int:
        """Characters that have come; places are counted in them."""
        return self._reader.fed_chars

    @property
    def decided_chars(self) -> int:
        """Those of them of which it is known whether they are visible text."""
        reader = self._reader
        if self._sink.is_telling:
            return reader.fed_chars
        if self._blank_places and not self._thinks:
            return self._blank_places[0]
        return reader.fed_chars - reader.held_chars if reader.is_marked else reader.taken_chars

    @property
    def shown(self) -> Sequence[Places]:
        """Where the characters of the `Text`s stood that were returned since the last `push`."""
        return self._shown

    def push(self, text: str, *, triggers: bool = False) -> list[Segment]:
        """Take more text; returns what is certain now.

        Args:
            text: what follows.
            triggers: behind it a grammar begins to hold a call; see `HeldCalls.triggers`.
        """
        self._shown.clear()
        self._reader.feed(text)
        if triggers:
            self._triggered.add(self._reader.fed_chars)
        next(self._run, None)
        return self._taken()

    def flush(self, *, cut: bool = False) -> list[Segment]:
        """Return what was withheld: the answer ends here.

        Args:
            cut: the model would have gone on, so an open call is no malformed one: what has come of
                it is told as a call that is not whole.
        """
        self._cut = cut
        self._reader.end()
        for _ in self._run:
            pass
        return self._taken()

    @abstractmethod
    def _answer(self) -> Steps[None]:
        """Read the whole answer."""

    def _taken(self) -> list[Segment]:
        segments, self._segments = self._segments, []
        return segments if len(segments) < 2 else joined(segments)

    def _say(self, text: str, places: Places | None = None) -> None:
        """Give out text of the kind that it is now; blanks at its end wait for what follows.

        Without `places` it is what was taken last.
        """
        if places is None:
            end = self._reader.taken_chars
            places = range(end - len(text), end)
        holds_blanks = self._thinks or not self._keep_blanks
        if self._blank and holds_blanks and not self._behind_marker and not text.strip():
            self._blank += text
            self._blank_places.extend(places)  # one by one: a model may say nothing else
            return
        if self._blank:
            text, places = self._blank + text, (*self._blank_places, *places)
        if self._behind_marker:
            text = text.lstrip()
            places = places[len(places) - len(text) :]
        said = text if self._keep_blanks and not self._thinks else text.rstrip()
        self._blank, self._blank_places = text[len(said) :], list(places[len(said) :])
        if said:
            self._give_out(said, places[: len(said)])
            self._behind_marker = False

    def _give_out(self, text: str, places: Places) -> None:
        if self._thinks:
            self._segments.append(Reasoning(text))
        else:
            self._segments.append(Text(text))
            self._shown.append(places)

    def _turn(self, *, thinks: bool) -> None:
        """A marker was passed, behind which the model thinks or speaks."""
        self._blank, self._blank_places = "", []
        self._behind_marker = True
        self._thinks = thinks

    def _say_call(self, segment: CallSegment) -> None:
        if isinstance(segment, CallBegun):
            self._turn(thinks=False)
        self._segments.append(segment)

    def _spoilt(self) -> Steps[None]:
        """What was read since the mark is no call: it is text, or the end if one was told of."""
        if not (self._sink.is_telling or (self._sink.is_open and self._cut)):
            self._give_back()
            return
        self._sink.break_off()
        yield from self._reader.drop_rest()

    def _give_back(self) -> None:
        """What was read since the mark is text after all."""
        text = self._reader.unmark()
        end = self._reader.taken_chars
        places: Places = range(end - len(text), end)
        for hidden in self._hidden:
            text, places = _without(hidden, text, places)
        self._say(text, places)

    def _prose(self, markers: Markers) -> Steps[str | None]:
        """Give out text up to a marker and set the reader's mark before that; None at the end."""
        reader = self._reader
        while True:
            before, marker = markers.split(reader.rest, ended=reader.ended)
            self._say(reader.take(len(before)))
            if marker is not None:
                reader.mark()
                return reader.take(len(marker))
            if reader.ended:
                self._say_rest()
                return None
            yield

    def _say_rest(self) -> None:
        blank, self._blank = self._blank, ""
        places, self._blank_places = self._blank_places, []
        if blank and not self._behind_marker:
            self._give_out(blank, places)


def _without(part: str, text: str, places: Places) -> tuple[str, Places]:
    """Return a text without a part of it, wherever that stands, and the places of the rest."""
    at = text.find(part)
    while at >= 0:
        end = at + len(part)
        text, places = text[:at] + text[end:], (*places[:at], *places[end:])
        at = text.find(part, at)
    return text, places


def joined(segments: list[Segment]) -> list[Segment]:
    """Return segments with texts of one kind that follow each other as one."""
    result: list[Segment] = []
    for segment in segments:
        last = result[-1] if result else None
        if isinstance(segment, Text) and isinstance(last, Text):
            result[-1] = Text(last.text + segment.text)
        elif isinstance(segment, Reasoning) and isinstance(last, Reasoning):
            result[-1] = Reasoning(last.text + segment.text)
        elif isinstance(segment, CallArguments) and isinstance(last, CallArguments):
            result[-1] = CallArguments(last.text + segment.text)
        else:
            result.append(segment)
    return result


class MarkedParser(AnswerParser):
    """Parses the common shape.

    Args:
        reasoning: None where the model does not think, or nobody wants to know.
        calls: None where there are no tools.
        tools: those of the request.
        hidden: see `AnswerParser`.
        held: where calls are held to their format.
        thinks: the prompt ends where the model's thoughts have begun.
        keep_blanks: see `AnswerParser`.
    """

    def __init__(
        self,
        reasoning: ReasoningMarks | None,
        calls: CallFormat | None,
        tools: Tools,
        hidden: Collection[str],
        *,
        held: HeldCalls = NOT_HELD,
        thinks: bool = False,
        keep_blanks: bool = False,
    ) -> None:
        self._reasoning = reasoning
        self._calls = calls
        self._tools = tools
        self._held = held
        self._nothing_came = not thinks
        self._begins_thinking = thinks
        openers = frozenset(calls.openers if calls is not None else ())
        self._openers = openers
        self._in_prose = Markers(openers | frozenset(hidden) | self._dropped())
        if reasoning is not None:
            # An opener that is no text cannot be a thought: the model forgot the end of those.
            self._in_thoughts = Markers({reasoning.closes, *hidden})
        super().__init__(hidden, keep_blanks=keep_blanks)

    def _dropped(self) -> frozenset[str]:
        return frozenset(self._reasoning.drops if self._reasoning is not None else ())

    def _answer(self) -> Steps[None]:
        marker: str | None = None
        if self._begins_thinking:
            marker = yield from self._think(opened=True)
        while True:
            if marker is None:
                marker = yield from self._beginning()
            if marker is None:
                marker = yield from self._prose(self._in_prose)
            if marker is None:
                return
            marker = yield from self._behind(marker)

    def _beginning(self) -> Steps[str | None]:
        """Where nothing was said yet, or not since the last call: thoughts or a bare call.

        Returns the marker of thoughts; of a bare call, having read it, an empty one.
        """
        reader = self._reader
        while (character := (yield from reader.peek())) and character.isspace():
            self._say(reader.take(1))
        if self._reasoning is not None:
            reader.mark()
            if (yield from reader.try_take(self._reasoning.opens)):
                return self._reasoning.opens
            reader.unmark()
        if self._calls is not None and character and character in self._calls.bare:
            reader.mark()
            return ""
        return None

    def _behind(self, marker: str) -> Steps[str | None]:
        """Read what follows a marker; returns the next one where it has passed that too."""
        if self._reasoning is not None and marker == self._reasoning.opens:
            self._reader.unmark()
            return (yield from self._think())
        first, self._nothing_came = self._nothing_came, False
        if self._calls is not None and (marker in self._openers or not marker):
            held = self._held
            is_held = held.first and first if not marker else marker in held.openers
            is_held = is_held or (bool(marker) and self._reader.taken_chars in self._triggered)
            self._sink.expect(held=held.all or is_held)
            return (yield from self._read_calls(self._calls, marker or None))
        self._reader.unmark()
        if marker not in self._dropped():
            return (yield from self._prose(self._in_prose))
        self._turn(thinks=False)
        return None

    def _read_calls(self, calls: CallFormat, opener: str | None) -> Steps[str | None]:
        try:
            yield from calls.read(opener, self._reader, self._tools, self._sink)
        except Malformed:
            yield from self._spoilt()
            return (yield from self._prose(self._in_prose))
        self._reader.unmark()
        return None

    def _think(self, *, opened: bool = False) -> Steps[str | None]:
        """Read thoughts up to their end; returns the marker of a call that ends them.

        Where the prompt has `opened` them, the model may do so again.
        """
        assert self._reasoning is not None, "it thinks, so it has markers"
        self._nothing_came = False
        self._turn(thinks=True)
        if opened:
            yield from self._reader.skip_blank()
            yield from self._reader.try_take(self._reasoning.opens)
        if self._reasoning.label:
            yield from self._reader.try_take(self._reasoning.label)
        while (marker := (yield from self._prose(self._in_thoughts))) is not None:
            if marker == self._reasoning.closes or marker in self._openers:
                self._turn(thinks=False)
                if marker in self._openers:
                    return marker
                break
            self._reader.unmark()
        if marker is not None:
            self._reader.unmark()
        return None
