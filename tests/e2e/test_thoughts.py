"""Thoughts out of a real actor and back into its next prompt, in every dialect; what is stored."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import Message
from jsonschema import Draft202012Validator
from openai.types.responses import Response

from tests.fakes.scripted_models import call
from tests.fakes.up_process import ScriptedUp, scripted_up

THOUGHT = "I look it up first.\nThen I say it."
SECOND_THOUGHT = "Now I know."
SAID = "It is warm."
THANKS = "You are welcome."
KOELN = {"city": "Köln"}
WRITTEN = f"<think>\n{THOUGHT}\n</think>"
RULES: list[dict[str, Any]] = [
    {
        "turn": 1,
        "contains": ["weather", "get_weather"],
        "answer": f"{WRITTEN}\n\n{call('get_weather', **KOELN)}",
    },
    {
        "turn": 2,
        "contains": [WRITTEN, call("get_weather", **KOELN)],
        "latest_contains": ["18 degrees"],
        "answer": f"<think>\n{SECOND_THOUGHT}\n</think>\n\n{SAID}",
    },
    {
        "turn": 3,
        "contains": [WRITTEN, SECOND_THOUGHT, SAID],
        "latest_contains": ["thanks"],
        "answer": THANKS,
    },
    {"answer": "I know nothing of it."},
]
ASK: list[Any] = [{"role": "user", "content": "How is the weather?"}]
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
]
TOOLS: list[Any] = [
    {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
]
ANTHROPIC_TOOLS: list[Any] = [{"name": "get_weather", "input_schema": PARAMETERS}]
TIMEOUT_S = 60.0
streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedUp]:
    with scripted_up(tmp_path_factory.mktemp("thoughts"), *RULES) as ready:
        yield ready


@pytest.fixture(scope="module")
def sdk(up: ScriptedUp) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{up.base_url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


@pytest.fixture(scope="module")
def claude(up: ScriptedUp) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=up.base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


@streamed
def test_chat_has_thoughts_in_both_directions(
    up: ScriptedUp, sdk: openai.OpenAI, stream: bool
) -> None:
    def ask(turns: list[Any]) -> tuple[Any, Any]:
        if not stream:
            answer = sdk.chat.completions.create(model=up.model, messages=turns, tools=CHAT_TOOLS)
            return answer.choices[0].message, answer.usage
        with sdk.chat.completions.stream(
            model=up.model,
            messages=turns,
            tools=CHAT_TOOLS,
            stream_options={"include_usage": True},
        ) as events:
            final = events.get_final_completion()
        return final.choices[0].message, final.usage

    first, used = ask(ASK)
    assert first.reasoning_content == THOUGHT
    assert not first.content
    assert len(THOUGHT) <= used.completion_tokens_details.reasoning_tokens < used.completion_tokens
    (wanted,) = first.tool_calls
    said = {
        "role": "assistant",
        "content": first.content,
        "reasoning_content": first.reasoning_content,
        "tool_calls": [
            {
                "id": wanted.id,
                "type": "function",
                "function": {"name": "get_weather", "arguments": wanted.function.arguments},
            }
        ],
    }
    result = {"role": "tool", "tool_call_id": wanted.id, "content": "18 degrees"}
    second, _ = ask([*ASK, said, result])
    assert (second.reasoning_content, second.content) == (SECOND_THOUGHT, SAID)


@streamed
@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_messages_have_signed_thoughts_in_both_directions(
    up: ScriptedUp, claude: anthropic.Anthropic, stream: bool, display: str
) -> None:
    thinking: Any = {"type": "adaptive", "display": display}

    def ask(turns: list[Any]) -> Message:
        asked: dict[str, Any] = {"model": up.model, "max_tokens": 1000, "tools": ANTHROPIC_TOOLS}
        asked |= {"messages": turns, "thinking": thinking}
        if not stream:
            return claude.messages.create(**asked)
        with claude.messages.stream(**asked) as events:
            seen = [event for event in events if event.type.startswith("content_block")]
            message = events.get_final_message()
        kinds = [getattr(getattr(event, "delta", None), "type", event.type) for event in seen]
        assert kinds[kinds.index("content_block_stop") - 1] == "signature_delta"
        assert ("thinking_delta" in kinds) == (display != "omitted")
        return message

    first = ask(ASK)
    assert first.stop_reason == "tool_use"
    thought, wanted = first.content
    assert thought.type == "thinking"
    assert thought.thinking == ("" if display == "omitted" else THOUGHT)
    assert thought.signature
    assert wanted.type == "tool_use"
    assert wanted.input == KOELN
    details: Any = first.usage.model_dump()["output_tokens_details"]
    assert len(THOUGHT) <= details["thinking_tokens"] < first.usage.output_tokens
    result = {"type": "tool_result", "tool_use_id": wanted.id, "content": "18 degrees"}
    said: Any = {"role": "assistant", "content": first.content}
    second = ask([*ASK, said, {"role": "user", "content": [result]}])
    assert [block.type for block in second.content] == ["thinking", "text"]
    assert second.content[1].type == "text"
    assert second.content[1].text == SAID
    assert second.stop_reason == "end_turn"


def respond(sdk: openai.OpenAI, up: ScriptedUp, stream: bool, **asked: Any) -> Response:
    asked |= {"model": up.model, "tools": TOOLS}
    if not stream:
        return sdk.responses.create(**asked)
    with sdk.responses.stream(**asked) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert kinds[-1] == "response.completed"
    if final.output[0].type == "reasoning":
        summarised = bool(final.output[0].summary)
        delta = "reasoning_summary_text" if summarised else "reasoning_text"
        assert f"response.{delta}.delta" in kinds
    return final


def result_of(response: Response) -> dict[str, Any]:
    wanted = response.output[1]
    assert wanted.type == "function_call"
    return {"type": "function_call_output", "call_id": wanted.call_id, "output": "18 degrees"}


def thought_of(response: Response) -> str:
    thought = response.output[0]
    assert thought.type == "reasoning"
    return "".join(part.text for part in (thought.content or thought.summary))


@streamed
@pytest.mark.parametrize("reasoning", [{}, {"reasoning": {"summary": "auto"}}])
def test_responses_have_thoughts_as_items_in_both_directions(
    up: ScriptedUp, sdk: openai.OpenAI, stream: bool, reasoning: dict[str, Any]
) -> None:
    first = respond(sdk, up, stream, input=ASK, store=False, **reasoning)
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    assert thought_of(first) == THOUGHT
    assert first.usage is not None
    thoughts = first.usage.output_tokens_details.reasoning_tokens
    assert len(THOUGHT) <= thoughts < first.usage.output_tokens
    items = [item.model_dump(exclude_none=True) for item in first.output]
    turns = [*ASK, *items, result_of(first)]
    second = respond(sdk, up, stream, input=turns, store=False, **reasoning)
    assert thought_of(second) == SECOND_THOUGHT
    assert second.output_text == SAID


@streamed
def test_a_response_goes_on_from_what_is_stored(
    up: ScriptedUp, sdk: openai.OpenAI, stream: bool
) -> None:
    first = respond(sdk, up, stream, input="How is the weather?")
    asked = {"input": [result_of(first)], "previous_response_id": first.id}
    second = respond(sdk, up, stream, **asked)
    assert second.output_text == SAID, "thoughts and call of the first are in its prompt"
    assert second.previous_response_id == first.id
    third = respond(sdk, up, stream, input="thanks", previous_response_id=second.id)
    assert third.output_text == THANKS
    listed = list(sdk.responses.input_items.list(third.id, order="asc"))
    assert [item.type for item in listed] == [
        *("message", "reasoning", "function_call", "function_call_output", "reasoning"),
        *("message", "message"),
    ]


@streamed
def test_nothing_goes_on_from_what_is_not_stored(
    up: ScriptedUp, sdk: openai.OpenAI, stream: bool
) -> None:
    unstored = respond(sdk, up, stream, input="How is the weather?", store=False)
    deleted = respond(sdk, up, stream, input="How is the weather?")
    after = respond(sdk, up, stream, input=[result_of(deleted)], previous_response_id=deleted.id)
    sdk.responses.delete(deleted.id)
    for id_ in ("resp_unknown", unstored.id, deleted.id, after.id):
        with pytest.raises(openai.BadRequestError) as caught:
            respond(sdk, up, stream, input="thanks", previous_response_id=id_)
        assert caught.value.code == "previous_response_not_found"
        assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(unstored.id)
    assert sdk.responses.retrieve(after.id).output_text == SAID


def test_answers_of_a_fleet_are_as_its_document_describes_them(up: ScriptedUp) -> None:
    document = httpx.get(f"{up.base_url}/openapi.json").json()

    def ask(method: str, path: str, described: str = "", **sent: Any) -> Any:
        answer = httpx.request(method, f"{up.base_url}{path}", timeout=TIMEOUT_S, **sent)
        operation = document["paths"][described or path][method.lower()]
        known = operation["responses"]
        status = str(answer.status_code)
        found = known.get(status) or known[f"{status[0]}XX"]
        schema = found["content"]["application/json"]["schema"]
        validator = Draft202012Validator(schema | {"components": document["components"]})
        validator.validate(answer.json())
        return answer.json()

    body: dict[str, Any] = {"model": up.model, "max_tokens": 300}
    chat = ask("POST", "/v1/chat/completions", json={**body, "messages": ASK, "tools": CHAT_TOOLS})
    assert chat["choices"][0]["message"]["reasoning_content"] == THOUGHT
    cut = ask("POST", "/v1/completions", json={**body, "prompt": "Hi", "logprobs": 2})
    assert cut["choices"][0]["logprobs"]
    for more in ({}, {"thinking": {"type": "adaptive"}}, {"context_management": {"edits": []}}):
        asked = {**body, **more, "messages": ASK, "tools": ANTHROPIC_TOOLS}
        message = ask("POST", "/v1/messages", json=asked)
        assert message["stop_reason"] == "tool_use"
    ask("POST", "/v1/messages", json={**body, "max_tokens": 60, "messages": ASK})
    kept = {**body, "messages": ASK, "thread": {"type": "create"}}
    assert ask("POST", "/v1/messages", json=kept)["error"]["details"]["unsupported"] == ["thread"]
    ask("POST", "/v1/messages/count_tokens", json={**body, "messages": ASK})
    for more in (
        {"tools": [*TOOLS, {"type": "web_search"}], "tool_choice": "auto"},
        {"max_output_tokens": 3, "metadata": {"a": "b"}, "temperature": 0.5},
        {"include": ["message.output_text.logprobs"], "reasoning": {"summary": "auto"}},
    ):
        response = ask("POST", "/v1/responses", json={"model": up.model, "input": ASK, **more})
        place = "/v1/responses/{response_id}"
        own = f"/v1/responses/{response['id']}"
        assert ask("GET", own, place) == response
        assert ask("GET", f"{own}/input_items", f"{place}/input_items")["data"]
        assert ask("POST", f"{own}/cancel", f"{place}/cancel")["error"]
        assert ask("DELETE", own, place)["deleted"]
        assert ask("DELETE", own, place)["error"]
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        models = ask("GET", "/v1/models", headers=headers)
        ask("GET", f"/v1/models/{models['data'][0]['id']}", "/v1/models/{model}", headers=headers)
    ask("GET", "/health")
    ask("GET", "/")
    ask("GET", "/openapi.json")
