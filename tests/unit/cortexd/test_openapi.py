"""The OpenAPI document: every route, and no reference that leads nowhere."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing
from falcon.inspect import inspect_routes
from jsonschema import Draft202012Validator

from cortex_core.dialects.openai_chat import ChatBody
from cortexd.app import AppParts, FalconApp, create_app
from cortexd.drain import Drain
from cortexd.openapi import openapi_document


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
            assert "200" in operation["responses"]
            assert ("requestBody" in operation) == (method == "post")
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
