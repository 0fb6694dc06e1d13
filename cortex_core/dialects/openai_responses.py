"""`POST /v1/responses`: OpenAI's Responses dialect."""

from collections.abc import Mapping, Sequence

import msgspec

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    Event,
    GenerateRequest,
    JsonObject,
    Message,
    TextPart,
)
from cortex_core.dialects.base import Decoded
from cortex_core.dialects.collector import Collector
from cortex_core.dialects.fields import check_num_parts, checked_model, principal_of
from cortex_core.dialects.openai_errors import OpenAIReplies
from cortex_core.dialects.openai_options import sampling_from
from cortex_core.dialects.openai_responses_answers import whole_json
from cortex_core.dialects.openai_responses_body import (
    ResponsesBody,
    form_of,
    logprobs_of,
    max_tokens_of,
    refuse_what_is_not_served,
    repeated,
    summary_of,
    without_effect,
)
from cortex_core.dialects.openai_responses_items import (
    items_from,
    kept_items,
    num_parts,
)
from cortex_core.dialects.openai_responses_stream import ResponseStream
from cortex_core.dialects.openai_responses_tools import ToolsAsked, tools_asked
from cortex_core.dialects.openai_responses_turns import Turns
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.dialects.service_tiers import tier_from
from cortex_core.dialects.sse import json_bytes
from cortex_core.ids import ModelId, RequestId


class DecodedResponse(Decoded, frozen=True, kw_only=True):
    """A request for a response, with what is stored of it."""

    asked: JsonObject
    """What the response repeats of its request."""
    items: tuple[JsonObject, ...]
    """The input, without what came before, as it is stored; none if it is not to be."""
    previous_response_id: str | None = None
    store: bool = True
    summarised: bool = False
    """Thoughts are to come as a summary of themselves."""


_decoder = msgspec.json.Decoder(ResponsesBody)


class OpenAIResponses(OpenAIReplies):
    """The dialect; stateless, one object serves every request.

    A request may go on from what is stored, so reading it takes two steps: `read`, and `decode`
    with what was found in the store.
    """

    def read(self, body: bytes) -> ResponsesBody:
        """Return what a client sent.

        Raises:
            InvalidRequest: with `param` as the JSON path of what is wrong.
        """
        wire = read_json(_decoder, body)
        refuse_what_is_not_served(wire)
        if isinstance(wire.input, list):
            check_num_parts(len(wire.input), place="input")
        return wire

    def decode(
        self,
        wire: ResponsesBody,
        *,
        request_id: RequestId,
        earlier: Sequence[JsonObject] = (),
        stored: Mapping[str, JsonObject] | None = None,
    ) -> DecodedResponse:
        """Return the canonical request.

        Args:
            earlier: items of the responses before, oldest first.
            stored: items that references name, by id.

        Raises:
            InvalidRequest: with `param` as the JSON path of what is wrong.
        """
        items = items_from(wire.input, stored or {})
        check_num_parts(num_parts(earlier) + num_parts(items), place="input")
        turns = _turns(wire, earlier, items)
        asked = tools_asked(wire.tools, wire.tool_choice)
        word, max_tokens = max_tokens_of(wire)
        store = wire.store is not False
        request = GenerateRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            prompt=_prompt(wire, turns, asked),
            sampling=sampling_from(
                wire,
                max_tokens=max_tokens,
                logprobs=logprobs_of(wire),
                words={"max_tokens": word, "logprobs": "top_logprobs"},
            ),
            response_format=form_of(wire),
            priority=tier_from(wire.service_tier).priority,
            principal=principal_of(wire.safety_identifier or wire.user),
        )
        left_out = (*without_effect(wire), *turns.ignored)
        warnings = [*(f"{place}: not served, left out" for place in left_out), *asked.warnings]
        return DecodedResponse(
            request=request,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=True,
            ignored=(*left_out, *asked.ignored),
            asked=repeated(wire, asked, warnings),
            items=kept_items(items, request_id) if store else (),
            previous_response_id=wire.previous_response_id or None,
            store=store,
            summarised=summary_of(wire) is not None,
        )

    def encoder(self, decoded: DecodedResponse, *, created: int) -> "ResponseEncoder":
        """Return a new encoder for one response."""
        return ResponseEncoder(decoded, created=created)


class ResponseEncoder:
    """One response, as a stream or as a whole.

    Attributes:
        response_id: what it is stored under.
    """

    def __init__(self, decoded: DecodedResponse, *, created: int) -> None:
        self.response_id = f"resp_{decoded.request.request_id}"
        self._decoded = decoded
        head = {"id": self.response_id, "object": "response", "created_at": created}
        self._asked = head | decoded.asked
        self._collector = Collector(choices=1)
        self._body: bytes | None = None
        self._stream = ResponseStream(
            self._asked,
            self._collector,
            self.body,
            request_id=decoded.request.request_id,
            summarised=decoded.summarised,
        )

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        return self._stream.event(event)

    def feed(self, event: Event) -> None:
        """Collect `event` for `body`."""
        self._collector.feed(event)

    def settled(self, event: Completed) -> bytes:
        """Return the whole answer as JSON just before `event` goes to `event` or `feed`."""
        self._collector.feed(event)
        return self.body()

    def body(self) -> bytes:
        """Return the whole answer as JSON."""
        if self._body is None:
            whole = whole_json(
                self._asked,
                self._collector.answer(),
                request_id=self._decoded.request.request_id,
                summarised=self._decoded.summarised,
            )
            self._body = json_bytes(whole)
        return self._body


def _turns(
    wire: ResponsesBody, earlier: Sequence[JsonObject], items: Sequence[JsonObject]
) -> Turns:
    turns = Turns()
    if wire.instructions:
        turns.messages.append(Message(role="system", content=(TextPart(wire.instructions),)))
    for item in earlier:
        turns.add(item, "previous_response_id")
    for number, item in enumerate(items):
        turns.add(item, f"input[{number}]")
    turns.close()
    if not turns.messages:
        raise refuse("input", "expected at least one item that says something")
    return turns


def _prompt(wire: ResponsesBody, turns: Turns, asked: ToolsAsked) -> ChatPrompt:
    effort = wire.reasoning.effort if wire.reasoning else None
    return ChatPrompt(
        messages=tuple(turns.messages),
        tools=asked.tools,
        tool_choice=asked.choice,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        reasoning_effort=effort,
        template_kwargs={"enable_thinking": False} if effort == "none" else {},
        truncates=wire.truncation == "auto",
    )
