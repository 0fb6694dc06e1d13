"""Every field of a request that the anthropic SDK can write is read here, or named as pointless."""

import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
import typing_extensions
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_tokens_params
from anthropic.types.beta import message_create_params as beta_create_params

from cortex_core.dialects.anthropic_body import MessagesBody
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.anthropic_skipped import SkippedBlock
from cortex_core.dialects.anthropic_tools import WireTool
from cortex_core.errors import InvalidRequest
from cortex_core.ids import RequestId

REQUESTS = [
    message_create_params.MessageCreateParamsNonStreaming,
    message_create_params.MessageCreateParamsStreaming,
    message_count_tokens_params.MessageCountTokensParams,
    beta_create_params.MessageCreateParamsNonStreaming,
    beta_create_params.MessageCreateParamsStreaming,
    beta_count_tokens_params.MessageCountTokensParams,
]

WITHOUT_EFFECT = {
    "betas": "sent as a header",
    "cache_control": "prefixes are cached without being asked to",
    "service_tier": "of Anthropic's capacity; both of its values are the standard tier",
    "speed": "of Anthropic's capacity",
    "inference_geo": "of Anthropic's capacity",
    "billing_policy": "of Anthropic's books",
    "fallback_credit_token": "of Anthropic's books",
    "user_profile_id": "of Anthropic's books",
    "workspace_id": "of Anthropic's books",
    "diagnostics": "about Anthropic's cache",
    "citations": "text is answered with text",
    "caller": "who made a call; here always the model itself",
    "allowed_callers": "who may make a call; here always the model itself",
    "toolset_name": "the call has its name",
    "defer_loading": "all tools are told of, and nobody searches for them",
    "eager_input_streaming": "input is streamed as it is made",
    "input_examples": "templates have no place for them",
    "max_characters": "what the client shows of a file",
    "display_number": "which display the client uses",
    "transformations": "images are for models that take them",
    "encrypted_content": "the summary stands beside it",
    "tool_changes": "those of turns that were summed up",
    "block_binding": "of Anthropic's signatures; none is looked into here",
    "content.signature": "of Anthropic's signatures; none is looked into here",
    "source.media_type": "text is always plain",
}
"""By the end of the path."""


def typed_dicts(hint: Any) -> Iterator[Any]:
    """The typed dictionaries in a type, in lists and unions too."""
    if typing_extensions.is_typeddict(hint):
        yield hint
        return
    for inner in typing.get_args(hint):
        yield from typed_dicts(inner)


def structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs in a type of ours."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
        return
    inner = hint.__args__ if isinstance(hint, types.UnionType) else typing.get_args(hint)
    for each in inner:
        yield from structs(each)


def tags(typed_dict: Any) -> tuple[str, ...]:
    return tuple(literals(typing_extensions.get_type_hints(typed_dict).get("type")))


def literals(hint: Any) -> Iterator[str]:
    for inner in typing.get_args(hint):
        if isinstance(inner, str):
            yield inner
        else:
            yield from literals(inner)


def counterpart(typed_dict: Any, ours: Iterable[type[msgspec.Struct]]) -> Any:
    """The struct that such a dictionary is read as."""
    for struct in ours:
        tag = struct.__struct_config__.tag
        if tag is None or tag in tags(typed_dict):
            return struct
    return None


def without_effect(path: str) -> bool:
    return any(path.endswith(f".{end}") for end in WITHOUT_EFFECT)


def not_read(theirs: Any, ours: Any, place: str, seen: set[Any]) -> Iterator[str]:
    """The places in a type of the SDK that a type of ours has nothing for."""
    known = list(structs(ours))
    for typed_dict in typed_dicts(theirs):
        struct = counterpart(typed_dict, known)
        if struct is None:
            yield f"{place} as {typed_dict.__name__}"
        elif (typed_dict, struct) not in seen and not issubclass(struct, SkippedBlock):
            seen.add((typed_dict, struct))
            if struct is WireTool and "input_schema" not in typed_dict.__annotations__:
                continue  # typed tools have a test of their own
            yield from _members_not_read(typed_dict, struct, place, seen)


def _members_not_read(
    typed_dict: Any, struct: type[msgspec.Struct], place: str, seen: set[Any]
) -> Iterator[str]:
    own = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    for name, hint in typing_extensions.get_type_hints(typed_dict).items():
        inner = f"{place}.{name}"
        if name in own:
            yield from not_read(hint, own[name], inner, seen) if any(structs(own[name])) else ()
        elif not without_effect(inner) and not (name == "type" and struct.__struct_config__.tag):
            yield inner


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda each: each.__module__[16:])
def test_every_field_of_the_sdk_is_read_or_named(request_type: Any) -> None:
    assert list(not_read(request_type, MessagesBody, "", set())) == []


def test_what_is_not_read_would_be_found() -> None:
    class Grown(message_create_params.MessageCreateParamsNonStreaming):
        telepathy: bool

    assert list(not_read(Grown, MessagesBody, "", set())) == [".telepathy"]


TOOLS = {
    tag
    for request_type in REQUESTS
    for tool in typed_dicts(typing_extensions.get_type_hints(request_type)["tools"])
    for tag in tags(tool)
} - {"custom"}
AT_THE_CLIENT = ("bash_2", "text_editor_2", "memory_2", "computer_2")


@pytest.mark.parametrize("kind", sorted(TOOLS))
def test_every_typed_tool_is_given_to_the_model_or_named_in_the_answer(kind: str) -> None:
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": kind, "name": "it"}],
    }
    decoded = AnthropicMessages().decode_request(
        json.dumps(body).encode(), request_id=RequestId("r")
    )
    tools = decoded.request.prompt.tools
    if kind.startswith(AT_THE_CLIENT):
        assert tools[0].parameters["properties"]
        assert tools[0].description
        assert decoded.ignored == ()
    else:
        assert tools == ()
        assert decoded.ignored == ("tools[0]",)


SERVED_ELSEWHERE = {
    "container": {"id": "c"},
    "mcp_servers": [{"type": "url", "name": "n", "url": "https://example.org"}],
    "fallbacks": "default",
    "output_config": {"task_budget": {"type": "tokens", "total": 9}},
}
REFUSED = {
    "thread": {"type": "create"},
    "compaction": {"type": "summarize"},
}


def read(**fields: Any) -> Any:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    data = json.dumps(body | fields).encode()
    return AnthropicMessages().decode_request(data, request_id=RequestId("r"))


@pytest.mark.parametrize("name", SERVED_ELSEWHERE)
def test_what_only_anthropics_servers_have_is_left_out_by_name(name: str) -> None:
    (path,) = read(**{name: SERVED_ELSEWHERE[name]}).ignored
    assert path.startswith(name)
    assert read(**{name: None}).ignored == ()


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_answer_would_be_wrong_without_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="here") as caught:
        read(**{name: REFUSED[name]})
    assert caught.value.param == name
    assert read(**{name: None}).ignored == ()


def test_a_thread_is_refused_in_words_that_tool_runners_know() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(thread=REFUSED["thread"])
    reply = AnthropicMessages().encode_error(caught.value.info(), request_id=RequestId("r"))
    assert reply.status == 400
    error = json.loads(reply.body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert read(telepathy={"deep": [1]}).ignored == ()
