"""`POST /v1/completions`: OpenAI's older dialect of plain text."""

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Loading,
    Ping,
    Prompt,
    ReasoningDelta,
    Started,
    TextDelta,
    TextPrompt,
    TokenLogprob,
    TokensPrompt,
    ToolCallDelta,
    ToolCallStarted,
)
from cortex_core.dialects import openai_errors
from cortex_core.dialects.base import Decoded, Reply, ResponseEncoder
from cortex_core.dialects.collector import Choice, Collector
from cortex_core.dialects.fields import checked_model, principal_of
from cortex_core.dialects.keepalive import keepalive_comment
from cortex_core.dialects.openai_answers import FINISH_REASONS, usage_json
from cortex_core.dialects.openai_chunks import DONE, ChunkFrame
from cortex_core.dialects.openai_errors import error_frame
from cortex_core.dialects.openai_options import (
    SharedOptions,
    response_format_from,
    sampling_from,
)
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.dialects.sse import json_text
from cortex_core.errors import ErrorInfo, ProtocolError
from cortex_core.ids import ModelId, RequestId
from cortex_core.sampling_limits import check_choices, check_token_ids


class CompletionBody(SharedOptions, frozen=True, kw_only=True):
    """The body, by its wire names; fields that are not here are ignored."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None
    echo: bool | None = None


_decoder = msgspec.json.Decoder(CompletionBody)


class OpenAICompletions:
    """The dialect; stateless, one object serves every request."""

    name = "openai_completions"

    def decode_request(self, body: bytes, *, request_id: RequestId) -> Decoded:
        """Return the canonical request for a client's body."""
        wire = read_json(_decoder, body)
        _refuse_what_is_not_served(wire)
        n = 1 if wire.n is None else wire.n
        check_choices(n)
        request = GenerateRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            prompt=_prompt(wire.prompt),
            sampling=sampling_from(wire, max_tokens=wire.max_tokens, logprobs=wire.logprobs),
            n=n,
            response_format=response_format_from(wire),
            principal=principal_of(wire.safety_identifier or wire.user),
        )
        return Decoded(
            request=request,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=wire.include_usage,
        )

    def encoder(self, decoded: Decoded, *, created: int) -> ResponseEncoder:
        """Return a new encoder for one response."""
        return CompletionEncoder(decoded, created=created)

    def encode_error(self, error: ErrorInfo, *, request_id: RequestId) -> Reply:
        """Return the answer for an error before the first byte of a response."""
        return openai_errors.error_reply(error, request_id=request_id)

    def response_headers(self, request_id: RequestId) -> dict[str, str]:
        """Return the headers that successful answers carry."""
        return openai_errors.response_headers(request_id)


class CompletionEncoder:
    """One response, as a stream or as a whole.

    What a chat would call reasoning is text here: the dialect knows nothing else.
    """

    def __init__(self, decoded: Decoded, *, created: int) -> None:
        self._decoded = decoded
        self._created = created
        self._id = f"cmpl-{decoded.request.request_id}"
        self._frame = ChunkFrame(
            decoded, chunk_id=self._id, kind="text_completion", created=created
        )
        self._offsets = [0] * decoded.request.n
        self._collector = Collector(choices=decoded.request.n)

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        match event:
            case TextDelta() | ReasoningDelta():
                return self._text(event)
            case Finished(index=index, reason=reason):
                return self._frame.chunk(index, b'"text":""', finish=reason)
            case Started():
                self._frame.start(event)
                return b""
            case Completed(usage=usage):
                last = self._frame.usage_chunk(usage) if self._decoded.include_usage else b""
                return last + DONE
            case Failed(error=error):
                return error_frame(error)
            case Ping() | Loading():
                return keepalive_comment(event)
            case ToolCallStarted() | ToolCallDelta():
                raise ProtocolError("cannot encode a tool call: completions have no tools")

    def _text(self, event: TextDelta | ReasoningDelta) -> bytes:
        logprobs = event.logprobs if isinstance(event, TextDelta) else ()
        if not event.text and not logprobs:
            return b""
        head = self._frame.head(event.index)
        delta = b'"text":' + json_text(event.text)
        if not logprobs:
            return head + delta + self._frame.open_tail
        offset_chars = self._offsets[event.index]
        self._offsets[event.index] += sum(len(each.text) for each in logprobs)
        chances = _logprobs_json(logprobs, offset_chars)
        return self._frame.chunk(event.index, delta, logprobs=chances)

    def feed(self, event: Event) -> None:
        """Collect `event` for `body`."""
        self._collector.feed(event)

    def body(self) -> bytes:
        """Return the whole answer as JSON."""
        answer = self._collector.answer()
        choices = [_choice_json(index, choice) for index, choice in enumerate(answer.choices)]
        return msgspec.json.encode(
            {
                "id": self._id,
                "object": "text_completion",
                "created": self._created,
                "model": self._decoded.model,
                "system_fingerprint": answer.started.weights_id,
                "choices": choices,
                "usage": usage_json(answer.usage),
            }
        )


def _choice_json(index: int, choice: Choice) -> dict[str, Any]:
    if choice.calls:
        raise ProtocolError("cannot encode a tool call: completions have no tools")
    return {
        "index": index,
        "text": "".join(run.text for run in choice.runs),
        "logprobs": _logprobs_json(choice.logprobs, 0) if choice.logprobs else None,
        "finish_reason": FINISH_REASONS[choice.finished.reason],
    }


def _logprobs_json(logprobs: Iterable[TokenLogprob], offset_chars: int) -> dict[str, Any]:
    tokens: list[str] = []
    chances: list[float] = []
    tops: list[dict[str, float]] = []
    offsets: list[int] = []
    for each in logprobs:
        tokens.append(each.text)
        chances.append(each.logprob)
        tops.append(_by_text(each.top))
        offsets.append(offset_chars)
        offset_chars += len(each.text)
    return {
        "tokens": tokens,
        "token_logprobs": chances,
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def _by_text(top: Iterable[TokenLogprob]) -> dict[str, float]:
    # The form has one place per text: of two tokens with equal text the likelier one stays.
    likeliest: dict[str, float] = {}
    for each in top:
        likeliest.setdefault(each.text, each.logprob)
    return likeliest


def _refuse_what_is_not_served(wire: CompletionBody) -> None:
    if wire.echo:
        raise refuse("echo", "not supported; the client has the prompt already")
    if wire.suffix:
        raise refuse("suffix", "not supported; put the text after the gap into the prompt")
    if wire.best_of is not None and wire.best_of > 1:
        raise refuse("best_of", "not supported; ask for n choices and pick one")


def _prompt(wire: str | list[str | int | list[int]]) -> Prompt:
    if isinstance(wire, str):
        return _text_prompt(wire, "prompt")
    if set(map(type, wire)) == {int}:
        return _tokens_prompt(cast("list[int]", wire), "prompt")
    if len(wire) != 1:
        raise refuse("prompt", f"expected one prompt, got a list of {len(wire)}")
    only = wire[0]
    if isinstance(only, str):
        return _text_prompt(only, "prompt[0]")
    assert isinstance(only, list)
    return _tokens_prompt(only, "prompt[0]")


def _text_prompt(text: str, place: str) -> TextPrompt:
    if not text:
        raise refuse(place, "expected some text, got an empty one")
    return TextPrompt(text)


def _tokens_prompt(token_ids: list[int], place: str) -> TokensPrompt:
    if not token_ids:
        raise refuse(place, "expected token ids, got an empty list")
    check_token_ids(token_ids, param=place)
    return TokensPrompt(tuple(token_ids))
