"""`POST /v1/chat/completions`: OpenAI's chat dialect."""

from typing import Final

import msgspec

from cortex_core.canonical import ChatPrompt, Event, GenerateRequest, JsonObject
from cortex_core.dialects.base import Decoded, ResponseEncoder
from cortex_core.dialects.collector import Collector
from cortex_core.dialects.fields import checked_model, principal_of
from cortex_core.dialects.openai_answers import chat_answer
from cortex_core.dialects.openai_chat_stream import ChatStream
from cortex_core.dialects.openai_errors import OpenAIReplies
from cortex_core.dialects.openai_options import (
    SharedOptions,
    TokenLimit,
    response_format_from,
    sampling_from,
)
from cortex_core.dialects.openai_tools import allowed_tools, tool_choice_from, tools_from
from cortex_core.dialects.openai_turns import messages_from
from cortex_core.dialects.openai_wire import (
    CalledFunction,
    LeftOut,
    WireMessage,
    WireTool,
    WireToolChoice,
)
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.dialects.service_tiers import left_out_tier, tier_from
from cortex_core.ids import ModelId, RequestId
from cortex_core.sampling_limits import check_choices


class ChatBody(SharedOptions, frozen=True, kw_only=True):
    """The body, by its wire names: all that OpenAI documents. Unknown fields are ignored."""

    messages: list[WireMessage]
    max_completion_tokens: TokenLimit = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: JsonObject | None = None
    modalities: list[str] | None = None
    functions: list[JsonObject] | None = None
    function_call: str | CalledFunction | None = None
    web_search_options: JsonObject | None = None
    moderation: JsonObject | None = None
    audio: LeftOut = None
    metadata: LeftOut = None
    prediction: LeftOut = None
    prompt_cache_key: LeftOut = None
    prompt_cache_options: LeftOut = None
    prompt_cache_retention: LeftOut = None
    store: LeftOut = None
    verbosity: LeftOut = None


_WITHOUT_EFFECT: Final = (
    "audio",
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "store",
    "verbosity",
)
"""Nothing is stored here; prompts are cached without being told how."""

_decoder = msgspec.json.Decoder(ChatBody)


class OpenAIChat(OpenAIReplies):
    """The dialect; stateless, one object serves every request."""

    def decode_request(self, body: bytes, *, request_id: RequestId) -> Decoded:
        """Return the canonical request for a client's body."""
        wire = read_json(_decoder, body)
        _refuse_what_is_not_served(wire)
        prompt, ignored = _prompt(wire)
        word, max_tokens = _max_tokens(wire)
        n = 1 if wire.n is None else wire.n
        check_choices(n)
        tier = tier_from(wire.service_tier)
        request = GenerateRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            prompt=prompt,
            sampling=sampling_from(
                wire,
                max_tokens=max_tokens,
                logprobs=_logprobs(wire),
                words={"max_tokens": word, "logprobs": "top_logprobs"},
            ),
            n=n,
            response_format=response_format_from(wire),
            priority=tier.priority,
            principal=principal_of(wire.safety_identifier or wire.user),
        )
        return Decoded(
            request=request,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=wire.include_usage,
            service_tier=None if wire.service_tier is None else tier.name,
            ignored=(*ignored, *_without_effect(wire), *left_out_tier(wire.service_tier)),
        )

    def encoder(self, decoded: Decoded, *, created: int) -> ResponseEncoder:
        """Return a new encoder for one response."""
        return ChatEncoder(decoded, created=created)


class ChatEncoder:
    """One response, as a stream or as a whole."""

    def __init__(self, decoded: Decoded, *, created: int) -> None:
        self._decoded = decoded
        self._created = created
        self._id = f"chatcmpl-{decoded.request.request_id}"
        self._stream = ChatStream(decoded, chunk_id=self._id, created=created)
        self._collector = Collector(choices=decoded.choices)

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        return self._stream.event(event)

    def feed(self, event: Event) -> None:
        """Collect `event` for `body`."""
        self._collector.feed(event)

    def body(self) -> bytes:
        """Return the whole answer as JSON."""
        answer = chat_answer(
            self._collector.answer(),
            answer_id=self._id,
            created=self._created,
            model=self._decoded.model,
            service_tier=self._decoded.service_tier,
        )
        return msgspec.json.encode(answer)


def _refuse_what_is_not_served(wire: ChatBody) -> None:
    if wire.modalities and set(wire.modalities) != {"text"}:
        raise refuse("modalities", 'only ["text"] can be answered')
    if wire.functions:
        raise refuse("functions", "not supported; send the functions as tools")
    if wire.function_call not in (None, "auto", "none"):
        raise refuse("function_call", "not supported; send tools and tool_choice")
    if wire.web_search_options is not None:
        raise refuse("web_search_options", "not supported: nothing is searched here")
    if wire.moderation is not None:
        raise refuse("moderation", "not supported: nothing is moderated here")


def _without_effect(wire: ChatBody) -> list[str]:
    return [name for name in _WITHOUT_EFFECT if getattr(wire, name) is not None]


def _prompt(wire: ChatBody) -> tuple[ChatPrompt, tuple[str, ...]]:
    tools, ignored = tools_from(wire.tools)
    tools = allowed_tools(wire.tool_choice, tools)
    template_kwargs = dict(wire.chat_template_kwargs or {})
    if wire.reasoning_effort == "none":
        template_kwargs.setdefault("enable_thinking", False)
    prompt = ChatPrompt(
        messages=messages_from(wire.messages),
        tools=tools,
        tool_choice=tool_choice_from(wire.tool_choice, tools),
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        reasoning_effort=wire.reasoning_effort,
        template_kwargs=template_kwargs,
    )
    return prompt, ignored


def _max_tokens(wire: ChatBody) -> tuple[str, TokenLimit]:
    if wire.max_completion_tokens is not None:
        return "max_completion_tokens", wire.max_completion_tokens
    return "max_tokens", wire.max_tokens


def _logprobs(wire: ChatBody) -> int | None:
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        raise refuse("top_logprobs", "needs logprobs to be true")
    return None
