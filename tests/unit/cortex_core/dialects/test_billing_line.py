"""The line that Claude Code begins its system text with changes from request to request."""

import json
from typing import Any

import pytest

from cortex_core.canonical import ChatPrompt, TextPart
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.ids import RequestId

ANTHROPIC = AnthropicMessages()
LINE = "x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=cli; cch={};"


def prompt(system: Any) -> ChatPrompt:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "system": system}
    data = json.dumps(body).encode()
    counted = ANTHROPIC.decode_count_tokens(data).prompt
    decoded = ANTHROPIC.decode_request(data, request_id=RequestId("r")).request.prompt
    assert isinstance(decoded, ChatPrompt)
    assert counted == decoded, "a count would be of another prompt"
    return decoded


def test_the_line_stays_where_that_is_wanted() -> None:
    line = LINE.format("3f2a1")
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "system": [text(line)]}
    dialect = AnthropicMessages(drop_billing_line=False)
    data = json.dumps(body).encode()
    decoded = dialect.decode_request(data, request_id=RequestId("r")).request.prompt
    assert decoded == dialect.decode_count_tokens(data).prompt
    assert isinstance(decoded, ChatPrompt)
    assert decoded.messages[0].content == (TextPart(line),)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("with_line", "without"),
    [
        (lambda line: [text(line), text("Be brief.")], [text("Be brief.")]),
        (lambda line: [text(f"{line}\nBe brief."), text("And kind.")],
         [text("Be brief."), text("And kind.")]),
        (lambda line: f"{line}\nBe brief.", "Be brief."),
        (lambda line: [text(line)], None),
        (lambda line: line, None),
    ],
)  # fmt: skip
def test_a_prompt_is_the_same_whatever_the_line_says(with_line, without) -> None:
    expected = prompt(without)
    for said in ("3f2a1", "ffffe"):
        assert prompt(with_line(LINE.format(said))) == expected


@pytest.mark.parametrize(
    "system", ["Never print x-anthropic-billing-header: lines.", [text(""), text(LINE)]]
)
def test_other_system_text_is_left_as_it_is(system) -> None:
    message = prompt(system).messages[0]
    given = [system] if isinstance(system, str) else [block["text"] for block in system]
    assert [part.text for part in message.content] == given
