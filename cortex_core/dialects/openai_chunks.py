"""The envelope of OpenAI's stream chunks, formatted once per response."""

import msgspec

from cortex_core.canonical import FinishReason, Started, Usage
from cortex_core.dialects.base import Decoded
from cortex_core.dialects.openai_answers import FINISH_REASONS, usage_json
from cortex_core.dialects.sse import data_frame, json_bytes, json_text
from cortex_core.errors import ProtocolError

DONE = data_frame(b"[DONE]")


class ChunkFrame:
    """Everything of a chunk but the delta. Valid after `start`."""

    def __init__(self, decoded: Decoded, *, chunk_id: str, kind: str, created: int) -> None:
        self._decoded = decoded
        self._chunk_id = chunk_id
        self._kind = kind
        self._created = created
        self._envelope = b""
        self._heads: list[bytes] = []
        end = b'],"usage":null}\n\n' if decoded.include_usage else b"]}\n\n"
        self._end = end
        self.open_tail = b',"logprobs":null,"finish_reason":null}' + end
        """What follows the delta of a choice that goes on."""

    def start(self, event: Started) -> None:
        """Fix the envelope; `weights_id` becomes the fingerprint that tells seeds apart."""
        fields = {
            "id": self._chunk_id,
            "object": self._kind,
            "created": self._created,
            "model": self._decoded.model,
            "system_fingerprint": event.weights_id,
        }
        if self._decoded.service_tier is not None:
            fields["service_tier"] = self._decoded.service_tier
        self._envelope = b"data: " + json_bytes(fields)[:-1] + b',"choices":['
        choices = range(self._decoded.choices)
        self._heads = [self._envelope + b'{"index":%d,' % index for index in choices]

    def head(self, index: int) -> bytes:
        """Return what precedes the delta of choice `index`.

        Raises:
            ProtocolError: the response has not started, or has no such choice.
        """
        if index >= len(self._heads):
            raise ProtocolError(f"cannot encode a delta of choice {index}: it has not started")
        return self._heads[index]

    def chunk(
        self,
        index: int,
        delta: bytes,
        *,
        logprobs: msgspec.Struct | None = None,
        finish: FinishReason | None = None,
    ) -> bytes:
        """Return a whole chunk; `delta` is a JSON member such as `"text":"a"`."""
        head = self.head(index)
        if logprobs is None and finish is None:
            return head + delta + self.open_tail
        reason = b"null" if finish is None else json_text(FINISH_REASONS[finish])
        chances = json_bytes(logprobs)
        tail = b',"logprobs":' + chances + b',"finish_reason":' + reason + b"}" + self._end
        return head + delta + tail

    def usage_chunk(self, usage: Usage) -> bytes:
        """Return the chunk that closes a stream whose client asked for usage."""
        return self._envelope + b'],"usage":' + json_bytes(usage_json(usage)) + b"}\n\n"
