"""What a format reads of calls, and when it is told. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from neurond.text.parsing.reader import Markers, Reader, Steps
from neurond.text.parsing.segments import (
    Call,
    CallArguments,
    CallBegun,
    CallEnded,
    CallSegment,
    Malformed,
)


class CallSink:
    """Told of calls. What is told cannot be given back as text, so the reader's mark moves on.

    A call that a grammar holds is told as it comes. Any other may turn out to be none, and is told
    when it is whole.

    Args:
        reader: what the calls are read from.
        say: takes the segments.
    """

    def __init__(self, reader: Reader, say: Callable[[CallSegment], None]) -> None:
        self._reader = reader
        self._say = say
        self._is_held = False
        self._is_open = False
        self._name = ""
        self._untold: list[str] = []
        """Arguments of the open call, where it is not held."""

    def expect(self, *, held: bool) -> None:
        """Calls may follow; `held` says that a grammar lets nothing else come."""
        self._is_held = held
        self._is_open = False
        self._untold = []

    @property
    def is_open(self) -> bool:
        """Whether a call was begun and not ended."""
        return self._is_open

    @property
    def is_telling(self) -> bool:
        """Whether a call was told of and not ended: it cannot be text any more."""
        return self._is_open and self._is_held

    def begin(self, name: str) -> None:
        """A call of `name` stands here, as far as it has come.

        Raises:
            Malformed: it has no name.
        """
        if not name:
            raise Malformed("a call without a name")
        self._is_open = True
        self._name = name
        if self._is_held:
            self._tell(CallBegun(name))

    def more(self, arguments: str) -> None:
        """More of the arguments; what came so far is the beginning of an object of JSON."""
        if not self._is_held:
            self._untold.append(arguments)
        elif arguments:
            self._tell(CallArguments(arguments))
        else:
            self._reader.mark()

    def end(self) -> None:
        """The arguments are whole."""
        self._end(is_whole=True)

    def break_off(self) -> None:
        """Nothing more comes of the open call."""
        self._end(is_whole=False)

    def whole(self, call: Call) -> None:
        """Tell a call at once."""
        self.begin(call.name)
        self.more(call.arguments)
        self.end()

    def _end(self, *, is_whole: bool) -> None:
        self._is_open = False
        if not self._is_held:
            arguments, self._untold = "".join(self._untold), []
            self._tell(CallBegun(self._name))
            if arguments:
                self._tell(CallArguments(arguments))
        self._tell(CallEnded(is_whole))

    def _tell(self, segment: CallSegment) -> None:
        self._say(segment)
        self._reader.mark()


class ArgumentsByName:
    """Writes an object of JSON from arguments that come one by one. Begins the call with the first.

    Args:
        name: of the tool.
        sink: is told.
    """

    def __init__(self, name: str, sink: CallSink) -> None:
        self._name = name
        self._sink = sink
        self._gap = "{"

    def key(self, key: str) -> None:
        """The value of an argument follows."""
        if not self._sink.is_open:
            self._sink.begin(self._name)
        self._sink.more(f"{self._gap}{encoded(key)}:")
        self._gap = ","

    def value(self, value: Any) -> None:
        """Tell the value of the last key.

        Raises:
            Malformed: JSON cannot say it.
        """
        self._sink.more(encoded(value))

    def text(self, reader: Reader, end: str, *, in_lines: bool = False) -> Steps[None]:
        """Tell the text before `end` as the value, as it comes, and take `end` too.

        Args:
            reader: stands where the text begins.
            end: what follows the text.
            in_lines: one line end on either side is not part of it.

        Raises:
            Malformed: the text ends first.
        """
        markers = Markers((end,))
        self._sink.more('"')
        if in_lines:
            yield from reader.try_take("\n")
        held = ""
        while True:
            before, marker = markers.split(reader.rest, ended=False)
            text = held + reader.take(len(before))
            held = "\n" if in_lines and text.endswith("\n") else ""
            self._sink.more(encoded(text.removesuffix(held))[1:-1])
            if marker is not None:
                reader.take(len(marker))
                self._sink.more('"')
                return
            yield from reader.more()

    def end(self) -> None:
        """There are no more arguments."""
        if not self._sink.is_open:
            self._sink.whole(Call(self._name, "{}"))
            return
        self._sink.more("}")
        self._sink.end()


def encoded(value: Any) -> str:
    """Return a value as JSON.

    Raises:
        Malformed: JSON cannot say it.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (
        msgspec.EncodeError,
        UnicodeEncodeError,
        OverflowError,
        RecursionError,
        TypeError,
    ) as ex:
        raise Malformed(str(ex)) from ex


def call_of(name: str, arguments: Mapping[str, Any]) -> Call:
    """Return a call whose arguments have been read.

    Raises:
        Malformed: the arguments are not what JSON can say.
    """
    return Call(name, encoded(arguments))
