"""Every field that OpenAI's own client knows is read, reported as left out, or refused by name."""

from typing import Any

import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params

from cortex_core.canonical import TextPrompt, TokensPrompt, ToolChoice
from cortex_core.dialects.base import Decoded, Dialect
from cortex_core.dialects.openai_chat import ChatBody, OpenAIChat
from cortex_core.dialects.openai_completions import CompletionBody, OpenAICompletions
from cortex_core.errors import InvalidRequest
from tests.unit.cortex_core.dialects.sdk_clients import decode
from tests.unit.cortex_core.dialects.sdk_fields import fields_of, open_ends

CHAT = OpenAIChat()
COMPLETIONS = OpenAICompletions()
SDK_TYPES = {
    "chat": (chat_params.CompletionCreateParamsStreaming, ChatBody),
    "completions": (completion_params.CompletionCreateParamsStreaming, CompletionBody),
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name}s"}}
    for name in ("look", "read")
]
SHARED = {
    "model": "other",
    "frequency_penalty": 0.5,
    "logit_bias": {"5": 1},
    "max_tokens": 5,
    "n": 2,
    "presence_penalty": 0.5,
    "seed": 7,
    "stop": "x",
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "temperature": 0.5,
    "top_p": 0.5,
    "user": "ada",
}
CHAT_FIELDS: dict[str, Any] = SHARED | {
    "messages": [{"role": "user", "content": "other"}],
    "audio": {"format": "wav", "voice": "alloy"},
    "function_call": {"name": "look"},
    "functions": [{"name": "look"}],
    "logprobs": True,
    "max_completion_tokens": 5,
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "a"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "ada",
    "service_tier": "flex",
    "store": True,
    "tool_choice": "none",
    "tools": TOOLS,
    "top_logprobs": 2,
    "verbosity": "low",
    "web_search_options": {},
}
COMPLETION_FIELDS: dict[str, Any] = SHARED | {
    "prompt": "other",
    "best_of": 2,
    "echo": True,
    "logprobs": 2,
    "suffix": "end",
}


@pytest.mark.parametrize("name", SDK_TYPES)
def test_every_field_that_the_sdk_knows_has_its_place(name: str) -> None:
    sdks, ours = SDK_TYPES[name]
    known, taken = fields_of(ours), open_ends(ours)
    assert len(known) > 10
    lost = {path for path in fields_of(sdks) - known if not path.startswith(tuple(taken))}
    assert not lost


CASES = [
    *(pytest.param(CHAT, name, value, id=f"chat-{name}") for name, value in CHAT_FIELDS.items()),
    *(
        pytest.param(COMPLETIONS, name, value, id=f"completions-{name}")
        for name, value in COMPLETION_FIELDS.items()
    ),
]


@pytest.mark.parametrize(("dialect", "name", "value"), CASES)
def test_no_field_is_passed_over_in_silence(dialect: Any, name: str, value: Any) -> None:
    found = read(dialect, name, value)
    if isinstance(found, InvalidRequest):
        assert found.param == name
        assert found.message.startswith(f"cannot read request: {name}: ")
    else:
        assert found != decode(dialect)


def read(dialect: Dialect, name: str, value: Any) -> Decoded | InvalidRequest:
    """What becomes of a request with one more field."""
    try:
        return decode(dialect, **{name: value})
    except InvalidRequest as error:
        return error


@pytest.mark.parametrize("name", SDK_TYPES)
def test_the_cases_above_are_all_that_the_sdk_knows(name: str) -> None:
    sdks, _ = SDK_TYPES[name]
    top = {path for path in fields_of(sdks, depth=1) if "." not in path}
    assert set(CHAT_FIELDS if name == "chat" else COMPLETION_FIELDS) == top


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=["chat", "completions"])
@pytest.mark.parametrize("value", [2**31, 2**63, 10**30])
def test_more_tokens_than_any_model_has_are_lowered(dialect: Any, value: int) -> None:
    assert decode(dialect, max_tokens=value).request.sampling.max_tokens == 2**31 - 1


@pytest.mark.parametrize(
    ("dialect", "word"),
    [(CHAT, "max_tokens"), (CHAT, "max_completion_tokens"), (COMPLETIONS, "max_tokens")],
)
def test_limits_as_other_servers_and_languages_write_them(dialect: Any, word: str) -> None:
    def limit(value: float) -> int | None:
        taken: int | None = decode(dialect, **{word: value}).request.sampling.max_tokens
        return taken

    assert limit(-1) is limit(-1.0) is None
    assert (limit(4096.0), type(limit(4096.0))) == (4096, int)
    assert limit(1e300) == 2**31 - 1
    for value in (0.5, -2):
        with pytest.raises(InvalidRequest) as caught:
            limit(value)
        assert caught.value.param == word


def test_allowed_tools_leave_only_themselves() -> None:
    look = {"type": "function", "function": {"name": "look"}}

    def asked(mode: str) -> Any:
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [look]}}
        return decode(CHAT, tools=TOOLS, tool_choice=allowed).request.prompt

    assert [tool.name for tool in asked("auto").tools] == ["look"]
    assert asked("auto").tool_choice == ToolChoice("auto")
    assert asked("required").tool_choice == ToolChoice("required")


def test_a_legacy_call_and_its_answer_belong_together() -> None:
    call = {"role": "assistant", "content": None}
    messages = [
        call | {"function_call": {"name": "look", "arguments": "1"}},
        {"role": "function", "name": "look", "content": "a"},
        call | {"function_call": {"name": "look", "arguments": "2"}},
        {"role": "function", "name": "look", "content": None},
    ]
    turns = decode(CHAT, messages=messages).request.prompt.messages
    calls, results = (
        [turn.content[0] for turn in turns[::2]],
        [turn.content[0] for turn in turns[1::2]],
    )
    assert [turn.role for turn in turns] == ["assistant", "tool"] * 2
    assert [(each.name, each.arguments) for each in calls] == [("look", "1"), ("look", "2")]
    assert [each.id for each in calls] == [each.call_id for each in results]
    assert calls[0].id != calls[1].id


def test_several_prompts_are_as_many_requests() -> None:
    decoded = decode(COMPLETIONS, prompt=["a", [4, 5], "c"], n=2, seed=3)
    requests = decoded.requests()
    assert decoded.choices == 6
    assert len({request.request_id for request in requests}) == 3
    assert requests[0] == decoded.request
    prompts = [TextPrompt("a"), TokensPrompt((4, 5)), TextPrompt("c")]
    assert [request.prompt for request in requests] == prompts
    assert all(request.n == 2 and request.sampling.seed == 3 for request in requests)


def test_no_more_choices_than_asked_for_is_no_best_of() -> None:
    assert decode(COMPLETIONS, n=2, best_of=2).request.n == 2
