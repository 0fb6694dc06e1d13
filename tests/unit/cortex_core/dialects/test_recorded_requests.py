"""What real clients sent, without their words: it is read whole.

tests/clients/record.py records it anew.
"""

import datetime as dt
import json
import re
from typing import Any

import msgspec
import pytest

from cortex_core.canonical import ChatPrompt, GenerateRequest
from cortex_core.dialects.base import Decoded
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS, FOLDER, fixture, names

MAX_BYTES = 150_000
MACHINE = re.compile(r"/(?:home|root|tmp|usr|work)/|127\.0\.0\.1|localhost")
LEFT_OUT = {"codex": ["namespace", "web_search"]}
"""Types of tools that a client offers and docs/protocol.md says are left out."""


def decode(case: dict[str, Any]) -> Decoded:
    body = json.dumps(case["body"]).encode()
    return DIALECTS[case["dialect"]].decode_request(body, request_id=RequestId("r"))


@pytest.mark.parametrize("name", names("recorded"))
def test_it_says_whose_it_is_and_nothing_of_a_machine(name: str) -> None:
    case = fixture("recorded", name)
    assert case["client"]
    assert re.match(r"\d+\.\d+\.\d+", case["version"])
    dt.date.fromisoformat(case["recorded"])
    text = (FOLDER / "recorded" / f"{name}.json").read_text("utf-8")
    assert len(text.encode()) < MAX_BYTES
    assert not MACHINE.search(text)


@pytest.mark.parametrize("name", names("recorded"))
def test_nothing_of_it_is_left_out_but_what_is_documented(name: str) -> None:
    case = fixture("recorded", name)
    tools = {
        f"tools[{at}]": tool.get("type") for at, tool in enumerate(case["body"].get("tools", ()))
    }
    ignored = decode(case).ignored
    assert [tools.get(place, place) for place in ignored] == LEFT_OUT.get(case["client"], [])


@pytest.mark.parametrize("name", names("recorded"))
def test_its_functions_are_the_models_tools(name: str) -> None:
    case = fixture("recorded", name)
    left_out = decode(case).ignored
    offered = [
        tool.get("function", tool)
        for place, tool in enumerate(case["body"].get("tools", ()))
        if f"tools[{place}]" not in left_out
    ]
    prompt = decode(case).request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert [tool.name for tool in prompt.tools] == [tool["name"] for tool in offered]
    schemas = [tool.get("input_schema", tool.get("parameters")) for tool in offered]
    assert [tool.parameters for tool in prompt.tools] == schemas


@pytest.mark.parametrize("name", names("recorded"))
def test_a_node_reads_of_it_what_the_gateway_wrote(name: str) -> None:
    request = decode(fixture("recorded", name)).request
    assert msgspec.json.decode(msgspec.json.encode(request), type=GenerateRequest) == request
