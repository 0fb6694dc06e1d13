"""A whole answer, gathered from its events, for clients that do not want a stream."""

from collections.abc import Iterable

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    Loading,
    Ping,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from cortex_core.errors import ErrorInfo, ProtocolError, error_from_info


class Pieces:
    """Text that arrives in pieces and is joined once, so that long answers cost linear time."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


class TextBlock(Pieces):
    """Visible text without interruption."""


class ReasoningBlock(Pieces):
    """Thoughts without interruption."""


class CallBlock(Pieces):
    """A tool call; its text is the arguments' JSON text."""

    def __init__(self, call_id: str, name: str) -> None:
        super().__init__()
        self.call_id = call_id
        self.name = name


class Choice:
    """One choice, as blocks in the order in which the model produced them."""

    def __init__(self) -> None:
        self.blocks: list[TextBlock | ReasoningBlock | CallBlock] = []
        self.calls: list[CallBlock] = []
        self.logprobs: list[TokenLogprob] = []
        self.finished: Finished | None = None

    @property
    def text(self) -> str:
        return _joined(block for block in self.blocks if isinstance(block, TextBlock))

    @property
    def reasoning(self) -> str:
        return _joined(block for block in self.blocks if isinstance(block, ReasoningBlock))

    def add_text(self, text: str) -> None:
        if text:
            self._last(TextBlock).add(text)

    def add_reasoning(self, text: str) -> None:
        if text:
            self._last(ReasoningBlock).add(text)

    def start_call(self, event: ToolCallStarted) -> None:
        if event.call_index != len(self.calls):
            raise ProtocolError(f"cannot collect call {event.call_index}: expected the next one")
        call = CallBlock(event.id, event.name)
        self.calls.append(call)
        self.blocks.append(call)

    def add_arguments(self, event: ToolCallDelta) -> None:
        if event.call_index >= len(self.calls):
            raise ProtocolError(f"cannot collect call {event.call_index}: it was not started")
        self.calls[event.call_index].add(event.arguments)

    def _last(self, kind: type[TextBlock] | type[ReasoningBlock]) -> Pieces:
        if not self.blocks or not isinstance(self.blocks[-1], kind):
            self.blocks.append(kind())
        return self.blocks[-1]


def _joined(blocks: Iterable[Pieces]) -> str:
    return "".join(block.text for block in blocks)


class Collector:
    """Takes a response's events in order; afterwards it holds the whole answer."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.usage: Usage | None = None
        self._choices: dict[int, Choice] = {}
        self._error: ErrorInfo | None = None

    def feed(self, event: Event) -> None:
        """Collect one event.

        Raises:
            ProtocolError: a delta comes before `Started`, or a call's delta before its start.
        """
        match event:
            case Started():
                self.started = event
            case Completed(usage=usage):
                self.usage = usage
            case Failed(error=error):
                self._error = error
            case Ping() | Loading():
                pass
            case _:
                self._delta(event)

    def _delta(
        self, event: TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | Finished
    ) -> None:
        if self.started is None:
            raise ProtocolError("cannot collect the answer: a delta came before it started")
        choice = self._choices.setdefault(event.index, Choice())
        match event:
            case TextDelta(text=text, logprobs=logprobs):
                choice.add_text(text)
                choice.logprobs.extend(logprobs)
            case ReasoningDelta(text=text):
                choice.add_reasoning(text)
            case ToolCallStarted():
                choice.start_call(event)
            case ToolCallDelta():
                choice.add_arguments(event)
            case Finished():
                choice.finished = event

    def answer(self) -> "Answer":
        """Return what was gathered.

        Raises:
            CortexError: the stream ended with `Failed`, and this is that error.
            ProtocolError: the stream is not whole.
        """
        if self._error is not None:
            raise error_from_info(self._error)
        if self.started is None or self.usage is None:
            raise ProtocolError("cannot collect the answer: its stream ended before it was whole")
        choices = [self._choices[index] for index in sorted(self._choices)]
        return Answer(self.started, self.usage, choices)


class Answer:
    """A whole answer. `choices` are in the order of their indexes."""

    def __init__(self, started: Started, usage: Usage, choices: list[Choice]) -> None:
        self.started = started
        self.usage = usage
        self.choices = choices
