"""Canonical events as frames of `POST /v1/responses`."""

from collections.abc import Callable
from typing import Final

import msgspec

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    JsonObject,
    Loading,
    Ping,
    PromptScored,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from cortex_core.dialects.collector import CallRun, Collector, ReasoningRun, Run, TextRun
from cortex_core.dialects.keepalive import keepalive_comment
from cortex_core.dialects.openai_responses_answers import (
    COMPLETED,
    IN_PROGRESS,
    begun_json,
    item_id,
    item_json,
    logprobs_json,
    response_json,
    status_after,
    text_part,
)
from cortex_core.dialects.sse import json_bytes, json_text, named_frame
from cortex_core.errors import ErrorInfo, ProtocolError

COMMENTS_PER_EVENT: Final = 20
"""Of the signs of life, which come about twice a second, so many are comments and the next one an
event: codex does not take a comment for one, and gives up after 300 s without an event."""

_NO_LOGPROBS: Final = b',"logprobs":[]}\n\n'


class ResponseStream:
    """One streamed response. Items follow each other and never overlap; events are numbered."""

    def __init__(
        self,
        asked: JsonObject,
        collector: Collector,
        whole: Callable[[], bytes],
        *,
        request_id: str,
        summarised: bool,
    ) -> None:
        """`collector` is fed here; `whole` gives the response once that holds all of it."""
        self._asked = asked
        self._collector = collector
        self._choice = collector.choice(0)
        self._whole = whole
        self._request_id = request_id
        self._summarised = summarised
        self._begun = False
        self._next_number = 0
        self._num_comments = 0
        self._num_opened = 0
        self._open: Run | None = None
        self._delta_head = b""
        self._delta_place = b""

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        match event:
            case TextDelta():
                return self._text(event)
            case ReasoningDelta(text=text) | ToolCallDelta(arguments=text):
                return self._pieces(event, text)
            case ToolCallStarted():
                self._collector.feed(event)
                return self._opened()
            case Finished():
                self._collector.feed(event)
                return self._close(status_after(event))
            case Started():
                self._collector.feed(event)
                return b"" if self._begun else self._begin()
            case Completed():
                self._collector.feed(event)
                return self._complete()
            case Failed(error=error):
                return self._fail(error)
            case PromptScored():
                return b""
            case Ping() | Loading():
                return self._keepalive(event)

    def _text(self, event: TextDelta) -> bytes:
        text, run = event.text, self._open
        if type(run) is TextRun and text and not event.logprobs and event.index == 0:
            # What nearly every token comes to: the run that is open gets more.
            run.add(text)
            return self._delta(text, _NO_LOGPROBS)
        self._collector.feed(event)
        if not text and not event.logprobs:
            return b""
        opened = self._opened()
        logprobs = json_bytes(logprobs_json(event.logprobs))
        return opened + self._delta(text, b',"logprobs":' + logprobs + b"}\n\n")

    def _pieces(self, event: ReasoningDelta | ToolCallDelta, text: str) -> bytes:
        self._collector.feed(event)
        if not text:
            return b""
        opened = self._opened()
        if (
            isinstance(event, ToolCallDelta)
            and self._choice.calls[event.call_index] is not self._open
        ):
            raise ProtocolError(f"cannot encode more of call {event.call_index}: it is not open")
        return opened + self._delta(text, b"}\n\n")

    def _delta(self, text: str, tail: bytes) -> bytes:
        number = self._next_number
        self._next_number = number + 1
        head, place = self._delta_head, self._delta_place
        return b"%b%d%b%b%b" % (head, number, place, json_text(text), tail)

    def _opened(self) -> bytes:
        """Return what closes the last item and opens the one that the collector has begun."""
        runs = self._choice.runs
        if len(runs) == self._num_opened:
            return b""
        closed = self._close(COMPLETED)
        run = self._open = runs[-1]
        index = self._num_opened
        self._num_opened = len(runs)
        own_id = item_id(run, self._request_id, index)
        place = {"item_id": own_id, "output_index": index}
        item = begun_json(run, own_id, summarised=self._summarised)
        added = self._frame("response.output_item.added", output_index=index, item=item)
        kind, place, part = self._delta_kind(run, place)
        self._delta_head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind, kind)
        self._delta_place = b"," + json_bytes(place)[1:-1] + b',"delta":'
        return closed + added + part

    def _delta_kind(self, run: Run, place: JsonObject) -> tuple[bytes, JsonObject, bytes]:
        """Return the type of an item's deltas, their place, and the frame that opens its part."""
        match run:
            case TextRun():
                place = place | {"content_index": 0}
                part = self._frame("response.content_part.added", **place, part=text_part(""))
                return b"response.output_text.delta", place, part
            case CallRun():
                return b"response.function_call_arguments.delta", place, b""
            case ReasoningRun():
                kind, place = self._thoughts(place)
                added, empty = _thoughts_part(kind, "added"), _thought(kind, "")
                part = self._frame(added, **place, part=empty)
                return f"response.{kind}.delta".encode(), place, part

    def _thoughts(self, place: JsonObject) -> tuple[str, JsonObject]:
        if self._summarised:
            return "reasoning_summary_text", place | {"summary_index": 0}
        return "reasoning_text", place | {"content_index": 0}

    def _close(self, status: str) -> bytes:
        run, index = self._open, self._num_opened - 1
        if run is None:
            return b""
        self._open = None
        own_id = item_id(run, self._request_id, index)
        place = {"item_id": own_id, "output_index": index}
        item = self._item(run, own_id, status)
        ended = self._ended(run, place)
        return ended + self._frame("response.output_item.done", output_index=index, item=item)

    def _ended(self, run: Run, place: JsonObject) -> bytes:
        match run:
            case TextRun(text=text, logprobs=logprobs):
                place = place | {"content_index": 0}
                part = text_part(text, logprobs)
                told = {"text": text, "logprobs": part["logprobs"]}
                done = self._frame("response.output_text.done", **place, **told)
                return done + self._frame("response.content_part.done", **place, part=part)
            case CallRun(name=name, text=arguments):
                told = {"name": name, "arguments": arguments}
                return self._frame("response.function_call_arguments.done", **place, **told)
            case ReasoningRun(text=text):
                kind, place = self._thoughts(place)
                done = self._frame(f"response.{kind}.done", **place, text=text)
                part = _thought(kind, text)
                return done + self._frame(_thoughts_part(kind, "done"), **place, part=part)

    def _item(self, run: Run, own_id: str, status: str) -> JsonObject:
        return item_json(run, own_id, status=status, summarised=self._summarised)

    def _begin(self) -> bytes:
        self._begun = True
        response = self._response(IN_PROGRESS)
        created = self._frame("response.created", response=response)
        return created + self._frame("response.in_progress", response=response)

    def _complete(self) -> bytes:
        kind = f"response.{status_after(self._choice.finished)}"
        return self._frame(kind, response=msgspec.Raw(self._whole()))

    def _fail(self, error: ErrorInfo) -> bytes:
        begun = b"" if self._begun else self._begin()
        return begun + self._frame("response.failed", response=self._response("failed", error))

    def _keepalive(self, event: Ping | Loading) -> bytes:
        said = keepalive_comment(event)
        if not self._begun:
            return said + self._begin()
        self._num_comments += 1
        if self._num_comments <= COMMENTS_PER_EVENT:
            return said
        self._num_comments = 0
        return said + self._frame("response.in_progress", response=self._response(IN_PROGRESS))

    def _response(self, status: str, error: ErrorInfo | None = None) -> JsonObject:
        return response_json(self._asked, status=status, error=error)

    def _frame(self, kind: str, **fields: object) -> bytes:
        numbered = {"type": kind, "sequence_number": self._number()}
        return named_frame(kind.encode(), json_bytes(numbered | fields))

    def _number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number


def _thoughts_part(kind: str, what: str) -> str:
    part = "reasoning_summary_part" if kind == "reasoning_summary_text" else "content_part"
    return f"response.{part}.{what}"


def _thought(kind: str, text: str) -> JsonObject:
    return {"type": kind.removeprefix("reasoning_") if "summary" in kind else kind, "text": text}
