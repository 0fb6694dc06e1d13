"""The OpenAPI document: every route, and no reference that leads nowhere."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing
from falcon.inspect import inspect_routes
from jsonschema import Draft202012Validator

from cortex_core.dialects.openai_chat import ChatBody
from cortex_core.errors import CortexError, InvalidRequest, QueueFull
from cortex_core.ids import RequestId
from cortexd.app import AppParts, FalconApp, create_app
from cortexd.drain import Drain
from cortexd.openapi import openapi_document
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS, fixture, names


@pytest.fixture(scope="module")
def app() -> FalconApp:
    nothing: Any = None
    return create_app(
        AppParts(
            gateway=nothing,
            embedding=nothing,
            fleet=nothing,
            nodes=nothing,
            responses=nothing,
            drain=Drain(),
            clock=lambda: 0.0,
            started_at=0,
        )
    )


@pytest.fixture(scope="module")
def document(app: FalconApp) -> dict[str, Any]:
    answer = testing.TestClient(app).simulate_get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_route_and_method_of_the_application_is_described(
    app: FalconApp, document: dict[str, Any]
) -> None:
    served = {
        (route.path.replace(":path}", "}"), method.method.lower())
        for route in inspect_routes(app)
        for method in route.methods
        if not method.internal
    }
    described = {(path, method) for path, ways in document["paths"].items() for method in ways}
    assert described == served


def test_every_operation_has_words_an_id_and_typed_answers(document: dict[str, Any]) -> None:
    ids = []
    for path, ways in document["paths"].items():
        for method, operation in ways.items():
            ids.append(operation["operationId"])
            assert operation["summary"].endswith("."), path
            never = path.endswith("/cancel")
            assert ("200" in operation["responses"]) is not never
            assert ("requestBody" in operation) == (method == "post" and not never)
            if method != "head":
                assert "4XX" in operation["responses"]
    assert len(set(ids)) == len(ids)


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    found = set(references(document))
    assert found
    assert found <= known


def test_schemas_are_schemas_and_say_what_is_taken(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    reference = {"$ref": f"#/components/schemas/{ChatBody.__name__}"}
    validator = Draft202012Validator(reference | {"components": document["components"]})
    good = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    }
    assert validator.is_valid(good)
    assert validator.is_valid(good | {"stop": ["a"], "max_tokens": None})
    assert not validator.is_valid(good | {"messages": [{"role": "robot"}]})
    assert not validator.is_valid({"messages": good["messages"]})


PATHS = {
    "anthropic_messages": "/v1/messages",
    "openai_chat": "/v1/chat/completions",
    "openai_completions": "/v1/completions",
    "openai_responses": "/v1/responses",
}


UNKNOWN = {"codex": {"client_metadata"}}
"""Members that a client adds for its own servers, and docs/protocol.md says are passed over."""


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator(schema | {"components": document["components"]}).validate(value)


def answered(document: dict[str, Any], path: str, status: str) -> dict[str, Any]:
    answer = document["paths"][path]["post"]["responses"][status]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    assert schema.get("type") != "object", f"{path} is described"
    return schema


@pytest.mark.parametrize("name", names("responses"))
def test_answers_are_as_they_are_described(document: dict[str, Any], name: str) -> None:
    case = fixture("responses", name)
    schema = answered(document, PATHS[case["dialect"]], "200")
    if case["whole"] is not None:
        check(document, schema, case["whole"])
        broken = {**case["whole"], "more": 1}
        typed = case["dialect"] in ("anthropic_messages", "openai_responses")
        assert not typed or not Draft202012Validator(
            schema | {"components": document["components"]}
        ).is_valid(broken), "fields that are not described are found"
    for line in case["stream"]:
        if line.startswith('data: {"type":"response.') and '"response":' in line:
            check(document, schema, json.loads(line.removeprefix("data: "))["response"])


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("requests", "recorded") for name in names(kind)]
)
def test_requests_are_as_they_are_described(document: dict[str, Any], kind: str, name: str) -> None:
    case = fixture(kind, name)
    operation = document["paths"][PATHS[case["dialect"]]]["post"]
    check(document, operation["requestBody"]["content"]["application/json"]["schema"], case["body"])


@pytest.mark.parametrize("name", names("recorded"))
def test_members_that_clients_send_are_described(document: dict[str, Any], name: str) -> None:
    case = fixture("recorded", name)
    operation = document["paths"][PATHS[case["dialect"]]]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    unknown = case["body"].keys() - schema["properties"].keys()
    assert unknown == UNKNOWN.get(case["client"], set())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "error", [QueueFull("cannot a", retry_after_s=1), InvalidRequest("cannot a", param="b")]
)
def test_errors_are_as_they_are_described(
    document: dict[str, Any], dialect: str, error: CortexError
) -> None:
    reply = DIALECTS[dialect].encode_error(error.info(), request_id=RequestId("r"))
    check(document, answered(document, PATHS[dialect], "4XX"), json.loads(reply.body))


def test_items_of_a_response_are_told_apart(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["ResponsesBody"]
    validator = Draft202012Validator(schema | {"components": document["components"]})
    for item, is_good in (
        ({"role": "user", "content": "hi"}, True),
        ({"role": "robot", "content": "hi"}, False),
        ({"type": "function_call", "call_id": "a", "name": "b"}, True),
        ({"type": "function_call", "name": "b"}, False),
        ({"type": "function_call_output", "call_id": "a", "output": "b"}, True),
        ({"type": "reasoning", "summary": []}, True),
        ({"type": "reasoning", "summary": "a"}, False),
        ({"type": "web_search_call", "action": 1}, True),
        ({"id": "msg_1"}, True),
        ({}, False),
    ):
        assert validator.is_valid({"model": "m", "input": [item]}) is is_good, item


def test_a_route_without_types_is_described_all_the_same() -> None:
    class Resource:
        async def on_post(self, req: Any, resp: Any) -> None:
            """Do something new.

            At length.
            """

        async def on_delete(self, req: Any, resp: Any) -> None:
            """Forget it."""

    document = openapi_document({"/v1/new/{a}": Resource()})
    operation = document["paths"]["/v1/new/{a}"]["post"]
    assert operation["summary"] == "Do something new."
    assert operation["description"] == "At length."
    assert [each["name"] for each in operation["parameters"]] == ["a"]
    assert "requestBody" in operation
    assert "requestBody" not in document["paths"]["/v1/new/{a}"]["delete"]
    json.dumps(document)
