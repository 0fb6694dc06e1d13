"""Canonical events as frames of `POST /v1/messages`."""

from typing import Any

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
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from cortex_core.dialects.anthropic_answers import AnswerForm, message_json, usage_json
from cortex_core.dialects.anthropic_errors import error_frame
from cortex_core.dialects.base import Decoded
from cortex_core.dialects.collector import Pieces
from cortex_core.dialects.keepalive import keepalive_comment
from cortex_core.dialects.sse import json_bytes, json_text, named_frame
from cortex_core.errors import ProtocolError

_PING = named_frame(b"ping", b'{"type":"ping"}')
_STOP = named_frame(b"message_stop", b'{"type":"message_stop"}')

Place = str | int
"""What a content block is for: `text`, `thinking`, or the index of a tool call."""


class MessageStream:
    """One streamed response. Blocks follow each other and never overlap."""

    def __init__(self, decoded: Decoded, form: AnswerForm, *, message_id: str) -> None:
        self._decoded = decoded
        self._form = form
        self._message_id = message_id
        self._withheld = Pieces()
        self._started = False
        self._finished: Finished | None = None
        self._open: Place | None = None
        self._next_index = 0
        self._delta_head = b""

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        match event:
            case TextDelta():
                return self._text(event, "text", {"type": "text", "text": ""}, b"text")
            case ReasoningDelta():
                return self._thought(event)
            case ToolCallStarted():
                return self._tool_call(event)
            case ToolCallDelta():
                return self._arguments(event)
            case Finished():
                self._check(event.index)
                self._finished = event
                return self._close()
            case Started():
                return self._start(event)
            case Completed(usage=usage):
                return self._complete(usage)
            case Failed(error=error):
                return error_frame(error, request_id=self._decoded.request.request_id)
            case PromptScored():
                return b""
            case Ping() | Loading():
                return self._keepalive(event)

    def _start(self, event: Started) -> bytes:
        self._started = True
        usage = Usage(event.prompt_tokens, 0, cached_tokens=event.cached_tokens)
        message = message_json(self._message_id, self._decoded.model, content=[], usage=usage)
        return _frame("message_start", message=message)

    def _text(
        self, event: TextDelta | ReasoningDelta, place: str, block: dict[str, Any], key: bytes
    ) -> bytes:
        if not event.text:
            return b""
        opened = b""
        if self._open != place:
            self._check(event.index)
            opened = self._close() + self._start_block(place, block)
            self._delta_head = self._delta_head_of(key + b"_delta", key)
        return opened + self._delta_head + json_text(event.text) + b"}}\n\n"

    def _thought(self, event: ReasoningDelta) -> bytes:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        if not self._form.thoughts_omitted:
            return self._text(event, "thinking", block, b"thinking")
        self._withheld.add(event.text)
        if not event.text or self._open == "thinking":
            return b""
        self._check(event.index)
        return self._close() + self._start_block("thinking", block)

    def _tool_call(self, event: ToolCallStarted) -> bytes:
        self._check(event.index)
        block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        opened = self._close() + self._start_block(event.call_index, block)
        self._delta_head = self._delta_head_of(b"input_json_delta", b"partial_json")
        return opened

    def _arguments(self, event: ToolCallDelta) -> bytes:
        if not event.arguments:
            return b""
        if self._open != event.call_index:
            raise ProtocolError(f"cannot encode more of call {event.call_index}: it is not open")
        return self._delta_head + json_text(event.arguments) + b"}}\n\n"

    def _start_block(self, place: Place, block: dict[str, Any]) -> bytes:
        self._open = place
        return _frame("content_block_start", index=self._next_index, content_block=block)

    def _delta_head_of(self, kind: bytes, key: bytes) -> bytes:
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (self._next_index, kind, key)
        )

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        index = self._next_index
        signed = b""
        if self._open == "thinking":
            signature = self._form.signature(self._withheld.text)
            self._withheld = Pieces()
            delta = {"type": "signature_delta", "signature": signature}
            signed = _frame("content_block_delta", index=index, delta=delta)
        self._open = None
        self._next_index += 1
        return signed + _frame("content_block_stop", index=index)

    def _complete(self, usage: Usage) -> bytes:
        if self._finished is None:
            raise ProtocolError("cannot encode the end of a message that did not finish")
        delta = self._form.ending(self._finished, usage)
        extras = self._form.extras()
        return _frame("message_delta", delta=delta, usage=usage_json(usage), **extras) + _STOP

    def _keepalive(self, event: Ping | Loading) -> bytes:
        # Before message_start too: every client that was tried passes over a ping, and some wait
        # for events where a comment is none.
        return _PING if isinstance(event, Ping) else keepalive_comment(event) + _PING

    def _check(self, index: int) -> None:
        if not self._started or index != 0:
            raise ProtocolError(f"cannot encode a delta of choice {index}: it has not started")


def _frame(kind: str, **fields: object) -> bytes:
    return named_frame(kind.encode(), json_bytes({"type": kind} | fields))
