"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's dialect."""

from typing import Any

import msgspec

from cortex_core.canonical import (
    ChatPrompt,
    Event,
    GenerateRequest,
    JsonObject,
    ResponseFormat,
    SamplingParams,
)
from cortex_core.dialects import anthropic_errors
from cortex_core.dialects.anthropic_answers import THINKING_SIGNATURE, message_json
from cortex_core.dialects.anthropic_content import TextBlock
from cortex_core.dialects.anthropic_stream import MessageStream
from cortex_core.dialects.anthropic_tools import (
    WireTool,
    WireToolChoice,
    parallel_from,
    tool_choice_from,
    tools_from,
)
from cortex_core.dialects.anthropic_turns import WireMessage, turns_from
from cortex_core.dialects.base import Decoded, Reply, ResponseEncoder
from cortex_core.dialects.collector import CallRun, Collector, ReasoningRun, TextRun
from cortex_core.dialects.fields import (
    as_texts,
    checked_model,
    max_tokens_from,
    principal_of,
    top_k_from,
)
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId, RequestId
from cortex_core.sampling_limits import check_sampling


class Metadata(msgspec.Struct, frozen=True):
    user_id: str | None = None


class Thinking(msgspec.Struct, frozen=True):
    type: str


class OutputFormat(msgspec.Struct, frozen=True):
    type: str
    schema: JsonObject | None = None


class OutputConfig(msgspec.Struct, frozen=True):
    effort: str | None = None
    format: OutputFormat | None = None


class MessagesBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body, by its wire names; fields that are not here are ignored."""

    model: str
    messages: list[WireMessage]
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None


class DecodedCount(msgspec.Struct, frozen=True):
    """A question for the number of a prompt's tokens; `model` is the client's own word."""

    model: str
    prompt: ChatPrompt


_decoder = msgspec.json.Decoder(MessagesBody)


class AnthropicMessages:
    """The dialect; stateless, one object serves every request."""

    name = "anthropic_messages"

    def decode_request(self, body: bytes, *, request_id: RequestId) -> Decoded:
        """Return the canonical request for a client's body."""
        wire = read_json(_decoder, body)
        prompt, ignored = _prompt(wire)
        request = GenerateRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            prompt=prompt,
            sampling=_sampling(wire),
            response_format=_response_format(wire),
            principal=principal_of(wire.metadata.user_id if wire.metadata else None),
        )
        return Decoded(
            request=request,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=True,
            ignored=ignored,
        )

    def decode_count_tokens(self, body: bytes) -> DecodedCount:
        """Return the prompt whose tokens a client wants counted.

        Raises:
            InvalidRequest: as `decode_request` does.
        """
        wire = read_json(_decoder, body)
        return DecodedCount(checked_model(wire.model), _prompt(wire)[0])

    def encode_count_tokens(self, prompt_tokens: int) -> bytes:
        """Return the answer to a count."""
        return msgspec.json.encode({"input_tokens": prompt_tokens})

    def encoder(self, decoded: Decoded, *, created: int) -> ResponseEncoder:
        """Return a new encoder for one response; the dialect has no place for `created`."""
        del created
        return MessageEncoder(decoded)

    def encode_error(self, error: ErrorInfo, *, request_id: RequestId) -> Reply:
        """Return the answer for an error before the first byte of a response."""
        return anthropic_errors.error_reply(error, request_id=request_id)

    def response_headers(self, request_id: RequestId) -> dict[str, str]:
        """Return the headers that successful answers carry."""
        return anthropic_errors.response_headers(request_id)


class MessageEncoder:
    """One response, as a stream or as a whole."""

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded
        self._id = f"msg_{decoded.request.request_id}"
        self._stream = MessageStream(decoded, message_id=self._id)
        self._collector = Collector(choices=1)

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        return self._stream.event(event)

    def feed(self, event: Event) -> None:
        """Collect `event` for `body`."""
        self._collector.feed(event)

    def body(self) -> bytes:
        """Return the whole answer as JSON."""
        answer = self._collector.answer()
        choice = answer.choices[0]
        message = message_json(
            self._id,
            self._decoded.model,
            content=[_block_json(run) for run in choice.runs],
            usage=answer.usage,
            finished=choice.finished,
        )
        return msgspec.json.encode(message)


def _block_json(run: TextRun | ReasoningRun | CallRun) -> dict[str, Any]:
    match run:
        case TextRun(text=text):
            return {"type": "text", "text": text}
        case ReasoningRun(text=text):
            return {"type": "thinking", "thinking": text, "signature": THINKING_SIGNATURE}
        case CallRun(call_id=call_id, name=name, text=arguments):
            return {
                "type": "tool_use",
                "id": call_id,
                "name": name,
                "input": _input_json(arguments),
            }


def _input_json(arguments: str) -> JsonObject:
    try:
        decoded: JsonObject = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        # Cut off by max_tokens. The dialect allows an object only: the text is kept inside one.
        return {"arguments": arguments}
    return decoded


def _sampling(wire: MessagesBody) -> SamplingParams:
    sampling = SamplingParams(
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=top_k_from(wire.top_k),
        stop=as_texts(wire.stop_sequences),
        max_tokens=max_tokens_from(wire.max_tokens),
    )
    check_sampling(sampling, names={"stop": "stop_sequences"})
    return sampling


def _prompt(wire: MessagesBody) -> tuple[ChatPrompt, tuple[str, ...]]:
    turns = turns_from(wire.system, wire.messages)
    tools, ignored = tools_from(wire.tools)
    prompt = ChatPrompt(
        messages=tuple(turns.messages),
        tools=tools,
        tool_choice=tool_choice_from(wire.tool_choice, tools),
        parallel_tool_calls=parallel_from(wire.tool_choice),
        reasoning_effort=wire.output_config.effort if wire.output_config else None,
        template_kwargs=_template_kwargs(wire.thinking),
    )
    return prompt, (*turns.ignored, *ignored)


def _template_kwargs(thinking: Thinking | None) -> JsonObject:
    # `enable_thinking` is what the templates of open models with a choice ask for.
    return {} if thinking is None else {"enable_thinking": thinking.type != "disabled"}


def _response_format(wire: MessagesBody) -> ResponseFormat | None:
    wanted = wire.output_config.format if wire.output_config else None
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        raise refuse("output_config.format.type", f"expected json_schema, got {wanted.type!r}")
    if wanted.schema is None:
        raise refuse("output_config.format.schema", "this field is required")
    return ResponseFormat(kind="json_schema", schema=wanted.schema)
