"""The official SDKs against `cortex up` with a scripted model: what clients do with what comes."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import Message, ToolUseBlock
from openai.types.chat import ChatCompletion

from cortex_core.neuron_api import ModelsResponse, NodeModel
from tests.fakes.fleet_process import total
from tests.fakes.scripted_models import call
from tests.fakes.up_process import ScriptedUp, scripted_up
from tests.fakes.waiting import wait_until
from tests.fakes.wire import decoded

LOOK = "I look at both."
KOELN = {"city": "Köln", "days": [1, 2]}
PARIS = {"city": "Paris", "days": []}
SAID = "Köln has 18 °C, Paris 21 °C."
TEXT = "Hello, 世界 — from the script. 🙂"
LONG = "One two three. " * 400
SPOILT = call("write_file", path="a", n=3)[:-15] + " or 4}}"
RULES: list[dict[str, Any]] = [
    {"turn": 1, "contains": ["write it down"], "answer": call("write_file", path="a", text=LONG)},
    {
        "turn": 1,
        "contains": ["badly"],
        "answer": SPOILT,
    },
    {"turn": 1, "contains": ["cut it off"], "answer": call("write_file", path="a", text=LONG)},
    {
        "turn": 1,
        "contains": ["weather", "get_weather"],
        "answer": f"{LOOK}\n{call('get_weather', **KOELN)}\n{call('get_weather', **PARIS)}",
    },
    {"turn": 2, "latest_contains": ["18 degrees", "21 degrees"], "answer": SAID},
    {"latest_contains": ["tell me more"], "answer": LONG * 4},
    {"answer": TEXT},
]
ASK: list[Any] = [{"role": "user", "content": "How is the weather?"}]
HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]
MORE: list[Any] = [{"role": "user", "content": "Please tell me more."}]
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
OPENAI_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
]
RESPONSES_TOOLS: list[Any] = [
    {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
]
ANTHROPIC_TOOLS: list[Any] = [{"name": "get_weather", "input_schema": PARAMETERS}]
FILE: dict[str, Any] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
}
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedUp]:
    with scripted_up(tmp_path_factory.mktemp("scripted"), *RULES, tokens_per_second=2000) as ready:
        yield ready


@pytest.fixture
def chat(up: ScriptedUp) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{up.base_url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


@pytest.fixture
def claude(up: ScriptedUp) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=up.base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


def node_model(up: ScriptedUp) -> NodeModel:
    models = decoded(httpx.get(f"{up.node_url}/models"), ModelsResponse).models
    return next(model for model in models if model.id == up.model)


def cancelled(up: ScriptedUp) -> float:
    """How many requests the node has ended because their client was gone."""
    metrics = httpx.get(f"{up.node_url}/metrics").text
    return total(metrics, "neuron_requests_total", {"outcome": "cancelled"})


def whole(client: openai.OpenAI, up: ScriptedUp, **options: Any) -> ChatCompletion:
    return client.chat.completions.create(model=up.model, **options)


def test_the_script_is_a_model_of_the_node(up: ScriptedUp) -> None:
    model = node_model(up)
    assert (model.status, model.kernels) == ("ready", "script")
    assert model.capabilities == ["completions", "chat", "tools"]
    listed = httpx.get(f"{up.base_url}/v1/models").json()["data"]
    assert up.model in {one["id"] for one in listed}


def test_text_comes_as_it_was_written(up: ScriptedUp, chat: openai.OpenAI) -> None:
    answer = whole(chat, up, messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(TEXT.encode()) + 1, "with the end"
    chunks = chat.chat.completions.create(model=up.model, messages=HELLO, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT


def test_text_comes_the_same_from_messages(up: ScriptedUp, claude: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": up.model, "messages": HELLO, "max_tokens": 500}
    answer = claude.messages.create(**asked)
    assert [block.text for block in answer.content if block.type == "text"] == [TEXT]
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == TEXT


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["claude-sonnet-4-5", "claude-opus-4-8", "claude-haiku-4-5-20251001"]
)
def test_anthropics_own_names_are_answered_to(
    up: ScriptedUp, claude: anthropic.Anthropic, name: str
) -> None:
    answer = claude.messages.create(model=name, messages=HELLO, max_tokens=500)
    assert answer.model == name
    assert [block.text for block in answer.content if block.type == "text"] == [TEXT]
    assert claude.messages.count_tokens(model=name, messages=HELLO).input_tokens > 0


def test_limits_and_stop_strings_cut_a_script(up: ScriptedUp, chat: openai.OpenAI) -> None:
    short = whole(chat, up, messages=HELLO, max_tokens=5)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == (
        "Hello",
        "length",
    )
    cut = whole(chat, up, messages=HELLO, stop=["世"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("Hello, ", "stop")


def test_a_client_that_leaves_stops_the_script(up: ScriptedUp, chat: openai.OpenAI) -> None:
    before = cancelled(up)
    with chat.chat.completions.create(model=up.model, messages=MORE, stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: cancelled(up) == before + 1)
    wait_until(lambda: node_model(up).running == 0)


def test_the_next_turn_finds_the_last_one_in_the_cache(up: ScriptedUp, chat: openai.OpenAI) -> None:
    system = {"role": "system", "content": "You are brief. " * 200}
    first = whole(chat, up, messages=[system, *HELLO])
    said = {"role": "assistant", "content": first.choices[0].message.content}
    second = whole(chat, up, messages=[system, *HELLO, said, *HELLO])
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens or 0
    before = first.usage.prompt_tokens + first.usage.completion_tokens
    assert cached >= before - 16
    assert cached >= 0.95 * second.usage.prompt_tokens


def results(calls: list[Any]) -> list[Any]:
    """Answer OpenAI's calls as an agent would."""
    degrees = {"Köln": "18 degrees", "Paris": "21 degrees"}
    return [
        {
            "role": "tool",
            "tool_call_id": one.id,
            "content": degrees[json.loads(one.function.arguments)["city"]],
        }
        for one in calls
    ]


def test_openai_tools_go_round(up: ScriptedUp, chat: openai.OpenAI) -> None:
    first = whole(chat, up, messages=ASK, tools=OPENAI_TOOLS)
    (choice,) = first.choices
    calls = choice.message.tool_calls or []
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == LOOK
    assert [one.function.name for one in calls] == ["get_weather"] * 2
    assert [json.loads(one.function.arguments) for one in calls] == [KOELN, PARIS]
    assert len({one.id for one in calls}) == 2
    turns = [*ASK, choice.message.model_dump(exclude_none=True), *results(calls)]
    second = whole(chat, up, messages=turns, tools=OPENAI_TOOLS)
    assert second.choices[0].message.content == SAID
    assert second.choices[0].finish_reason == "stop"
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert first.usage is not None
    cached = second.usage.prompt_tokens_details.cached_tokens or 0
    assert cached >= first.usage.prompt_tokens, "its calls are rendered as it wrote them"


def test_openai_tools_are_streamed(up: ScriptedUp, chat: openai.OpenAI) -> None:
    with chat.chat.completions.stream(model=up.model, messages=ASK, tools=OPENAI_TOOLS) as stream:
        kinds = {event.type for event in stream}
        (choice,) = stream.get_final_completion().choices
    assert "tool_calls.function.arguments.delta" in kinds
    assert choice.message.content == LOOK
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    assert [json.loads(one.function.arguments) for one in calls] == [KOELN, PARIS]


@pytest.mark.parametrize("held", [True, False])
def test_a_long_argument_of_a_held_call_comes_while_it_is_written(
    up: ScriptedUp, chat: openai.OpenAI, claude: anthropic.Anthropic, held: bool
) -> None:
    asked: list[Any] = [{"role": "user", "content": "Please write it down."}]
    tool = {"name": "write_file", "parameters": FILE}
    chunks = chat.chat.completions.create(
        model=up.model,
        messages=asked,
        tools=[{"type": "function", "function": tool}],  # type: ignore[list-item]
        tool_choice="required" if held else "auto",
        stream=True,
    )
    told = [
        call.function.arguments or ""
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
        if call.function is not None
    ]
    with claude.messages.stream(
        model=up.model,
        max_tokens=9000,
        messages=asked,
        tools=[{"name": "write_file", "input_schema": FILE}],
        tool_choice={"type": "any" if held else "auto"},
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    with chat.responses.stream(
        model=up.model,
        input=asked,
        tools=[{**tool, "type": "function", "strict": False}],  # type: ignore[list-item]
        tool_choice="required" if held else "auto",
    ) as events:
        deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        response = events.get_final_response()
    arguments = {"path": "a", "text": LONG}
    assert json.loads("".join(told)) == arguments
    assert [b.input for b in message.content if isinstance(b, ToolUseBlock)] == [arguments]
    assert response.output[0].type == "function_call"
    assert response.output[0].arguments == "".join(deltas) == "".join(told)
    for each in (told, pieces, deltas):
        assert (max(map(len, each)) < 200) is held, "no part of it waits for the rest"


def test_a_call_that_the_model_spoils_is_text(
    up: ScriptedUp, chat: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    asked: list[Any] = [{"role": "user", "content": "Write it badly."}]
    (choice,) = whole(chat, up, messages=asked, tools=OPENAI_TOOLS).choices
    assert (choice.message.content, choice.finish_reason) == (SPOILT, "stop")
    assert not choice.message.tool_calls
    with claude.messages.stream(
        model=up.model, max_tokens=500, messages=asked, tools=ANTHROPIC_TOOLS
    ) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn"
    assert [block.text for block in message.content if block.type == "text"] == [SPOILT]
    response = chat.responses.create(model=up.model, input=asked, tools=RESPONSES_TOOLS)
    assert (response.output_text, response.status) == (SPOILT, "completed")


def test_a_call_that_a_limit_cuts_off_is_open(
    up: ScriptedUp, chat: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    asked: list[Any] = [{"role": "user", "content": "Please cut it off."}]
    (choice,) = whole(chat, up, messages=asked, tools=OPENAI_TOOLS, max_tokens=90).choices
    (begun,) = choice.message.tool_calls or []
    assert choice.finish_reason == "length"
    assert begun.function.arguments.startswith('{"path": "a", "text": "One ')
    assert not begun.function.arguments.endswith("}")
    with claude.messages.stream(
        model=up.model, max_tokens=90, messages=asked, tools=ANTHROPIC_TOOLS
    ) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "max_tokens"
    assert [block.type for block in message.content] == ["tool_use"]
    response = chat.responses.create(
        model=up.model, input=asked, tools=RESPONSES_TOOLS, max_output_tokens=90
    )
    assert response.status == "incomplete"
    assert response.output[0].type == "function_call"
    assert response.output[0].status == "incomplete"
    assert response.output[0].arguments == begun.function.arguments


def test_a_prompt_is_put_into_the_cache_by_a_request_for_no_tokens(
    up: ScriptedUp, claude: anthropic.Anthropic, chat: openai.OpenAI
) -> None:
    asked: dict[str, Any] = {"model": up.model, "system": "You are terse. " * 99, "messages": HELLO}
    warmed = claude.messages.create(max_tokens=0, **asked)
    assert (warmed.content, warmed.stop_reason) == ([], "max_tokens")
    assert warmed.usage.output_tokens == 0
    answer = claude.messages.create(max_tokens=9, **asked)
    assert (answer.usage.cache_read_input_tokens or 0) > 0.9 * warmed.usage.input_tokens
    nothing = chat.completions.create(model=up.model, prompt="Well", echo=True, max_tokens=0)
    assert (nothing.choices[0].text, nothing.choices[0].finish_reason) == ("Well", "length")
    assert nothing.usage is not None
    assert nothing.usage.completion_tokens == 0


def answers(message: Message) -> list[Any]:
    """Answer Anthropic's calls as an agent would."""
    degrees = {"Köln": "18 degrees", "Paris": "21 degrees"}
    return [
        {"type": "tool_result", "tool_use_id": block.id, "content": degrees[block.input["city"]]}
        for block in message.content
        if isinstance(block, ToolUseBlock)
    ]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_anthropic_tools_go_round(
    up: ScriptedUp, claude: anthropic.Anthropic, streamed: bool
) -> None:
    def ask(turns: list[Any]) -> Message:
        asked: dict[str, Any] = {"model": up.model, "max_tokens": 1000, "tools": ANTHROPIC_TOOLS}
        if not streamed:
            return claude.messages.create(messages=turns, **asked)
        with claude.messages.stream(messages=turns, **asked) as stream:
            return stream.get_final_message()

    first = ask(ASK)
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["text", "tool_use", "tool_use"]
    assert [b.input for b in first.content if isinstance(b, ToolUseBlock)] == [KOELN, PARIS]
    said: Any = {"role": "assistant", "content": first.content}
    second = ask([*ASK, said, {"role": "user", "content": answers(first)}])
    assert second.stop_reason == "end_turn"
    assert [block.text for block in second.content if block.type == "text"] == [SAID]
    assert (second.usage.cache_read_input_tokens or 0) >= first.usage.input_tokens


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_anthropics_tool_runner_goes_on_without_a_thread(
    up: ScriptedUp, claude: anthropic.Anthropic, streamed: bool
) -> None:
    asked: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str, days: list[int]) -> str:
        """Tell the weather."""
        asked.append(city)
        return {"Köln": "18 degrees", "Paris": "21 degrees"}[city]

    runner = claude.beta.messages.tool_runner(
        model=up.model, max_tokens=1000, messages=ASK, tools=[get_weather], stream=streamed
    )
    last = runner.until_done()
    assert [block.text for block in last.content if block.type == "text"] == [SAID]
    assert asked == ["Köln", "Paris"]
