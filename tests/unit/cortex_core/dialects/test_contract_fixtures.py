"""Requests in the forms that clients send, written by hand, and answers byte for byte."""

import json
from typing import Any

import msgspec
import pytest

from cortex_core.canonical import Event
from cortex_core.errors import CortexError
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS, bad_requests, fixture, names

REQUEST_ID = RequestId("r")
CREATED = 1_700_000_000


@pytest.mark.parametrize("name", names("requests"))
def test_a_request_is_read_as_its_fixture_says(name: str) -> None:
    case = fixture("requests", name)
    dialect = DIALECTS[case["dialect"]]
    body = json.dumps(case["body"]).encode()
    decoded = dialect.decode_request(body, request_id=REQUEST_ID)
    assert msgspec.json.decode(msgspec.json.encode(decoded)) == case["decoded"]


@pytest.mark.parametrize("name", names("responses"))
def test_a_response_is_written_as_its_fixture_says(name: str) -> None:
    case = fixture("responses", name)
    dialect = DIALECTS[case["dialect"]]
    decoded = dialect.decode_request(json.dumps(case["body"]).encode(), request_id=REQUEST_ID)
    events = msgspec.convert(case["events"], list[Event])
    streaming = dialect.encoder(decoded, created=CREATED)
    stream = b"".join(streaming.event(event) for event in events)
    assert stream.decode().split("\n") == case["stream"]
    collecting = dialect.encoder(decoded, created=CREATED)
    for event in events:
        collecting.feed(event)
    if case["whole"] is None:
        with pytest.raises(CortexError):
            collecting.body()
    else:
        assert json.loads(collecting.body()) == case["whole"]


def _label(value: Any) -> str | None:
    return value.get("param") or value["says"] if isinstance(value, dict) else None


@pytest.mark.parametrize(("name", "case"), bad_requests(), ids=_label)
def test_bad_input_is_refused_naming_its_place(name: str, case: dict[str, Any]) -> None:
    dialect = DIALECTS[name]
    body = case["body"].encode() if "body" in case else _with(name, case["json"])
    with pytest.raises(CortexError) as caught:
        dialect.decode_request(body, request_id=REQUEST_ID)
    error = caught.value
    assert error.status == 400
    assert error.param == case["param"]
    assert error.message.startswith("cannot read request: ")
    assert case["says"] in error.message


def _with(name: str, fields: dict[str, Any]) -> bytes:
    prompts: dict[str, Any] = {
        "openai_completions": {"prompt": "hi"},
        "openai_responses": {"input": "hi"},
    }
    prompt = prompts.get(name, {"messages": [{"role": "user", "content": "hi"}]})
    base = {"model": "small"} | prompt if fields else {}
    return json.dumps(base | fields).encode()
