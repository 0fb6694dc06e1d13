"""For whom a request of Anthropic's dialect is: Claude Code names its session beside its user."""

import json

import pytest

from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.ids import RequestId


def principal(user_id: str | None) -> str | None:
    body: dict[str, object] = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi."}],
    }
    if user_id is not None:
        body["metadata"] = {"user_id": user_id}
    decoded = AnthropicMessages().decode_request(
        json.dumps(body).encode(), request_id=RequestId("r")
    )
    return decoded.request.principal


def claude_code(account: str, device: str, session: str) -> str:
    return json.dumps({"device_id": device, "account_uuid": account, "session_id": session})


def test_sessions_of_an_account_or_else_of_a_device_are_one() -> None:
    assert principal(claude_code("a", "d1", "s1")) == principal(claude_code("a", "d2", "s2"))
    assert principal(claude_code("", "d", "s1")) == principal(claude_code("", "d", "s2"))
    assert principal(claude_code("", "d1", "s")) != principal(claude_code("", "d2", "s"))


@pytest.mark.parametrize(
    "user_id", ["u", "{", "[1]", '{"device_id": 1}', "{}", '{"user": "u"}', "7", "é"]
)
def test_other_words_are_taken_as_they_are(user_id: str) -> None:
    named = principal(user_id)
    assert named is not None
    assert named == principal(user_id)
    assert named != principal(user_id + " ")


def test_who_names_nobody_has_no_principal_yet() -> None:
    assert principal(None) is None
