"""Canonical events as chunks of `POST /v1/chat/completions`."""

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
)
from cortex_core.dialects.base import Decoded
from cortex_core.dialects.keepalive import keepalive_comment
from cortex_core.dialects.openai_answers import chat_logprobs_json
from cortex_core.dialects.openai_chunks import DONE, ChunkFrame
from cortex_core.dialects.openai_errors import error_frame
from cortex_core.dialects.sse import json_bytes, json_text

_ROLE = b'"delta":{"role":"assistant","content":""}'
_NOTHING = b'"delta":{}'


class ChatStream:
    """One streamed response."""

    def __init__(self, decoded: Decoded, *, chunk_id: str, created: int) -> None:
        self._decoded = decoded
        self._frame = ChunkFrame(
            decoded, chunk_id=chunk_id, kind="chat.completion.chunk", created=created
        )
        self._delta_tail = b"}" + self._frame.open_tail

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        match event:
            case TextDelta():
                return self._text(event)
            case ReasoningDelta(index=index, text=text):
                return self._reasoning(index, text)
            case ToolCallDelta():
                return self._call_delta(event)
            case ToolCallStarted():
                return self._call_started(event)
            case Finished(index=index, reason=reason):
                return self._frame.chunk(index, _NOTHING, finish=reason)
            case Started():
                return self._start(event)
            case Completed(usage=usage):
                last = self._frame.usage_chunk(usage) if self._decoded.include_usage else b""
                return last + DONE
            case Failed(error=error):
                return error_frame(error, request_id=self._decoded.request.request_id)
            case PromptScored():
                return b""
            case Ping() | Loading():
                return keepalive_comment(event)

    def _start(self, event: Started) -> bytes:
        self._frame.start(event)
        choices = range(self._decoded.choices)
        return b"".join(self._frame.chunk(index, _ROLE) for index in choices)

    def _text(self, event: TextDelta) -> bytes:
        head = self._frame.head(event.index)
        if event.logprobs:
            delta = b'"delta":{"content":' + json_text(event.text) + b"}"
            logprobs = chat_logprobs_json(event.logprobs)
            return self._frame.chunk(event.index, delta, logprobs=logprobs)
        if not event.text:
            return b""
        return head + b'"delta":{"content":' + json_text(event.text) + self._delta_tail

    def _reasoning(self, index: int, text: str) -> bytes:
        head = self._frame.head(index)
        if not text:
            return b""
        return head + b'"delta":{"reasoning_content":' + json_text(text) + self._delta_tail

    def _call_started(self, event: ToolCallStarted) -> bytes:
        call = {
            "index": event.call_index,
            "id": event.id,
            "type": "function",
            "function": {"name": event.name, "arguments": ""},
        }
        delta = b'"delta":{"tool_calls":' + json_bytes([call]) + b"}"
        return self._frame.chunk(event.index, delta)

    def _call_delta(self, event: ToolCallDelta) -> bytes:
        head = self._frame.head(event.index)
        if not event.arguments:
            return b""
        call = b'"delta":{"tool_calls":[{"index":%d,"function":{"arguments":' % event.call_index
        return head + call + json_text(event.arguments) + b"}}]" + self._delta_tail
