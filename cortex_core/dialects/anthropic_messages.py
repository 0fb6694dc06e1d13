"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's dialect."""

import msgspec

from cortex_core.canonical import ChatPrompt, Event, GenerateRequest, SamplingParams
from cortex_core.decoding import UNDECODABLE
from cortex_core.dialects import anthropic_errors
from cortex_core.dialects.anthropic_answers import AnswerForm, content_json, message_json
from cortex_core.dialects.anthropic_body import (
    MessagesBody,
    check_served,
    format_from,
    is_given,
    left_out,
)
from cortex_core.dialects.anthropic_stream import MessageStream
from cortex_core.dialects.anthropic_thinking import template_kwargs
from cortex_core.dialects.anthropic_tools import OfferedTools, parallel_from
from cortex_core.dialects.anthropic_turns import turns_from
from cortex_core.dialects.base import Decoded, Reply, ResponseEncoder
from cortex_core.dialects.collector import Collector
from cortex_core.dialects.fields import (
    as_texts,
    check_num_tools,
    checked_model,
    max_tokens_from,
    principal_of,
    top_k_from,
)
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId, RequestId
from cortex_core.sampling_limits import check_sampling


class DecodedCount(msgspec.Struct, frozen=True):
    """A question for the number of a prompt's tokens; `model` is the client's own word."""

    model: str
    prompt: ChatPrompt


class DecodedMessages(Decoded, frozen=True, kw_only=True, omit_defaults=True):
    """A request of this dialect, with what only its answers have."""

    thoughts_omitted: bool = False
    """Thinking blocks have no text; their signature holds it."""
    manages_context: bool = False
    """The request names edits of its context; the answer says which were made."""


_decoder = msgspec.json.Decoder(MessagesBody)


class _ClaudeCodeUser(msgspec.Struct):
    """What Claude Code writes as JSON into `metadata.user_id`, besides an id of its session."""

    account_uuid: str = ""
    device_id: str = ""


_user_decoder = msgspec.json.Decoder(_ClaudeCodeUser)


class AnthropicMessages:
    """The dialect; stateless, one object serves every request.

    Args:
        drop_billing_line: see `anthropic_turns.BILLING_LINE`.
    """

    def __init__(self, *, drop_billing_line: bool = True) -> None:
        self._drop_billing_line = drop_billing_line

    def decode_request(self, body: bytes, *, request_id: RequestId) -> DecodedMessages:
        """Return the canonical request for a client's body."""
        wire = read_json(_decoder, body)
        check_served(wire)
        prompt, ignored = self._prompt(wire)
        response_format = format_from(wire)
        if response_format is not None and prompt.continue_final_message:
            why = "an answer in this format begins anew; end with a turn of the user"
            raise refuse("messages", why)
        request = GenerateRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            prompt=prompt,
            sampling=_sampling(wire),
            response_format=response_format,
            principal=_principal(wire),
        )
        return DecodedMessages(
            request=request,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=True,
            ignored=ignored,
            thoughts_omitted=wire.thinking is not None and wire.thinking.omitted,
            manages_context=is_given(wire.context_management),
        )

    def decode_count_tokens(self, body: bytes) -> DecodedCount:
        """Return the prompt whose tokens a client wants counted.

        Raises:
            InvalidRequest: as `decode_request` does.
        """
        wire = read_json(_decoder, body)
        check_served(wire)
        return DecodedCount(checked_model(wire.model), self._prompt(wire)[0])

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

    def _prompt(self, wire: MessagesBody) -> tuple[ChatPrompt, tuple[str, ...]]:
        """Return the prompt, and the JSON paths of what was left out of the request."""
        turns = turns_from(wire.system, wire.messages, drop_billing_line=self._drop_billing_line)
        check_num_tools(len(wire.tools or ()) + len(turns.tool_changes))
        offered = OfferedTools()
        for index, tool in enumerate(wire.tools or ()):
            offered.declare(tool, f"tools[{index}]")
        for place, change in turns.tool_changes.items():
            offered.change(change, place)
        effort = wire.output_config.effort if wire.output_config else None
        prompt = ChatPrompt(
            messages=tuple(turns.messages),
            tools=offered.tools,
            tool_choice=offered.choice(wire.tool_choice),
            parallel_tool_calls=parallel_from(wire.tool_choice),
            reasoning_effort=turns.effort or effort,
            template_kwargs=template_kwargs(wire.thinking, turns.messages),
            continue_final_message=turns.goes_on,
        )
        return prompt, (*turns.ignored, *offered.ignored, *left_out(wire))


class MessageEncoder:
    """One response, as a stream or as a whole."""

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded
        self._form = _form(decoded)
        self._id = f"msg_{decoded.request.request_id}"
        self._stream = MessageStream(decoded, self._form, message_id=self._id)
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
            content=[content_json(run, self._form) for run in choice.runs],
            usage=answer.usage,
            ending=self._form.ending(choice.finished, answer.usage),
        )
        return msgspec.json.encode(message | self._form.extras())


def _principal(wire: MessagesBody) -> str | None:
    """Return for whom a request is: all sessions of one who uses Claude Code are one."""
    user_id = wire.metadata.user_id if wire.metadata else None
    if user_id is None:
        return None
    try:
        user = _user_decoder.decode(user_id)
    except UNDECODABLE:
        return principal_of(user_id)
    return principal_of(user.account_uuid or user.device_id or user_id)


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


def _form(decoded: Decoded) -> AnswerForm:
    max_tokens = decoded.request.sampling.max_tokens
    if not isinstance(decoded, DecodedMessages):
        return AnswerForm(max_tokens, thoughts_omitted=False, manages_context=False)
    return AnswerForm(max_tokens, decoded.thoughts_omitted, decoded.manages_context)
