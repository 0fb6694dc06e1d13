"""A whole answer, gathered from its events, for clients that do not want a stream."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    Loading,
    Ping,
    PromptScored,
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


class TextRun(Pieces):
    """Visible text without interruption, and its tokens where they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.logprobs: list[TokenLogprob] = []


class ReasoningRun(Pieces):
    """Thoughts without interruption."""


class CallRun(Pieces):
    """A tool call; its text is the arguments' JSON text."""

    def __init__(self, call_id: str, name: str) -> None:
        super().__init__()
        self.call_id = call_id
        self.name = name


TextOrThoughts = TypeVar("TextOrThoughts", TextRun, ReasoningRun)
Run = TextRun | ReasoningRun | CallRun


class Choice:
    """One choice, as runs in the order in which the model produced them."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.calls: list[CallRun] = []
        self.prompt_scores: list[TokenLogprob] = []
        self.prompt_text = ""
        self._finished: Finished | None = None

    @property
    def finished(self) -> Finished:
        """How this choice ended; raises `ProtocolError` where it did not."""
        if self._finished is None:
            raise ProtocolError("cannot collect the answer: a choice did not finish")
        return self._finished

    def finish(self, event: Finished) -> None:
        self._finished = event

    @property
    def text(self) -> str:
        return _joined(run for run in self.runs if isinstance(run, TextRun))

    @property
    def reasoning(self) -> str:
        return _joined(run for run in self.runs if isinstance(run, ReasoningRun))

    @property
    def logprobs(self) -> list[TokenLogprob]:
        texts = (run for run in self.runs if isinstance(run, TextRun))
        return [each for run in texts for each in run.logprobs]

    def add_text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        if text or logprobs:
            run = self._last(TextRun)
            run.add(text)
            run.logprobs.extend(logprobs)

    def add_reasoning(self, text: str) -> None:
        if text:
            self._last(ReasoningRun).add(text)

    def start_call(self, event: ToolCallStarted) -> None:
        if event.call_index != len(self.calls):
            raise ProtocolError(f"cannot collect call {event.call_index}: expected the next one")
        call = CallRun(event.id, event.name)
        self.calls.append(call)
        self.runs.append(call)

    def add_arguments(self, event: ToolCallDelta) -> None:
        if event.call_index >= len(self.calls):
            raise ProtocolError(f"cannot collect call {event.call_index}: it was not started")
        self.calls[event.call_index].add(event.arguments)

    def _last(self, kind: type[TextOrThoughts]) -> TextOrThoughts:
        last = self.runs[-1] if self.runs else None
        if not isinstance(last, kind):
            last = kind()
            self.runs.append(last)
        return last


def _joined(runs: Iterable[Pieces]) -> str:
    return "".join(run.text for run in runs)


class Answer:
    """What was gathered. `choices` are in the order of their indexes."""

    def __init__(self, started: Started, usage: Usage, choices: list[Choice]) -> None:
        self.started = started
        self.usage = usage
        self.choices = choices


class Collector:
    """Takes a response's events in order; afterwards it holds the whole answer."""

    def __init__(self, *, choices: int) -> None:
        self._started: Started | None = None
        self._usage: Usage | None = None
        self._choices = [Choice() for _ in range(choices)]
        self._error: ErrorInfo | None = None

    def feed(self, event: Event) -> None:
        """Collect one event.

        Raises:
            ProtocolError: a delta comes before `Started`, or a call's delta before its start.
        """
        match event:
            case Started():
                self._started = event
            case Completed(usage=usage):
                self._usage = usage
            case Failed(error=error):
                self._error = error
            case Ping() | Loading():
                pass
            case PromptScored(index=index, scores=scores, text=text):
                self._choice(index).prompt_scores.extend(scores)
                self._choice(index).prompt_text += text
            case _:
                self._delta(event)

    def _delta(
        self, event: TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | Finished
    ) -> None:
        if self._started is None:
            raise ProtocolError("cannot collect the answer: a delta came before it started")
        choice = self._choice(event.index)
        match event:
            case TextDelta(text=text, logprobs=logprobs):
                choice.add_text(text, logprobs)
            case ReasoningDelta(text=text):
                choice.add_reasoning(text)
            case ToolCallStarted():
                choice.start_call(event)
            case ToolCallDelta():
                choice.add_arguments(event)
            case Finished():
                choice.finish(event)

    def _choice(self, index: int) -> Choice:
        if index >= len(self._choices):
            raise ProtocolError(f"cannot collect choice {index}: it was not asked for")
        return self._choices[index]

    def choice(self, index: int) -> Choice:
        """Return what has come of a choice so far."""
        return self._choices[index]

    def answer(self) -> Answer:
        """Return what was gathered.

        Raises:
            CortexError: the stream ended with `Failed`, and this is that error.
            ProtocolError: the stream is not whole.
        """
        if self._error is not None:
            raise error_from_info(self._error)
        if self._started is None or self._usage is None:
            raise ProtocolError("cannot collect the answer: its stream ended before it was whole")
        return Answer(self._started, self._usage, self._choices)
