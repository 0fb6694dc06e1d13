"""What the gateway's routes take and give, as an OpenAPI document.

Paths, methods and their words come from the resources, schemas from the types that requests are
read with and answers are written from. By hand is only which type belongs to which route, below; a
route that is not there is described without types. Pure.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from cortex_core import __version__
from cortex_core.canonical import JsonObject
from cortex_core.dialects.anthropic_body import MessagesBody
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.model_lists import (
    MAX_LIMIT,
    AnthropicModel,
    AnthropicModels,
    OpenAIModel,
    OpenAIModels,
)
from cortex_core.dialects.openai_answers import ChatAnswer
from cortex_core.dialects.openai_chat import ChatBody
from cortex_core.dialects.openai_completion_answers import CompletionAnswer
from cortex_core.dialects.openai_completions import CompletionBody
from cortex_core.dialects.openai_embeddings import EmbeddingsBody
from cortex_core.dialects.openai_errors import ErrorEnvelope
from cortex_core.dialects.openai_responses_body import ResponsesBody
from cortex_core.dialects.openai_responses_turns import (
    CallItem,
    CallOutputItem,
    MessageItem,
    ReasoningItem,
)
from cortexd.openapi_bounds import bind
from cortexd.openapi_types import (
    AnthropicErrorEnvelope,
    DeletedResponse,
    EmbeddingsAnswer,
    InputItems,
    MessageAnswer,
    OpenApiDocument,
    ResponseAnswer,
    TokenCount,
)
from cortexd.resources.service import Greeting, Health
from cortexd.resources.stored_responses import MAX_LIMIT as MAX_ITEMS

OPENAPI_VERSION: Final = "3.1.0"
REF_TEMPLATE: Final = "#/components/schemas/{name}"
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
_WITH_BODY: Final = ("post", "put", "patch")
_PARAMETER: Final = re.compile(r"\{(?P<name>\w+)(:\w+)?\}")


class Operation(msgspec.Struct, frozen=True):
    """What one method of a route takes and gives."""

    answers: tuple[Any, ...] = (JsonObject,)
    """Types of the body of a good answer; several where the caller's headers choose."""
    answers_well: bool = True
    """Otherwise there are only errors."""
    body: Any = None
    errors: tuple[Any, ...] = (ErrorEnvelope,)
    streams: bool = False
    """With `stream` in the body the answer is server-sent events."""
    unready: Any = None
    """Type of the body of a 503 that is no error."""
    parameters: tuple[JsonObject, ...] = ()
    """Beside those of the path."""


def _parameter(place: str, name: str, **schema: Any) -> JsonObject:
    return {"name": name, "in": place, "schema": schema}


_SHAPE: Final = (
    _parameter("header", "anthropic-version", type="string"),
    _parameter("header", "x-api-key", type="string"),
)
"""Either makes it the list that Anthropic's clients read; `_PAGE` is read only then."""
_PAGE: Final = (
    _parameter("query", "limit", type="integer", minimum=1, maximum=MAX_LIMIT),
    _parameter("query", "after_id", type="string"),
    _parameter("query", "before_id", type="string"),
)
_ITEMS: Final = (
    _parameter("query", "limit", type="integer", minimum=1, maximum=MAX_ITEMS),
    _parameter("query", "order", type="string", enum=["asc", "desc"]),
    _parameter("query", "after", type="string"),
)
_WHOLE: Final = (_parameter("query", "stream", type="boolean", enum=[False]),)
_ANY_ERROR: Final = (ErrorEnvelope, AnthropicErrorEnvelope)
_ANTHROPIC: Final = (AnthropicErrorEnvelope,)
_OPERATIONS: Final = {
    "get /": Operation((Greeting,)),
    "head /": Operation(()),
    "get /health": Operation((Health,), unready=Health),
    "head /health": Operation(()),
    "get /openapi.json": Operation((OpenApiDocument,)),
    "post /v1/chat/completions": Operation((ChatAnswer,), body=ChatBody, streams=True),
    "post /v1/completions": Operation((CompletionAnswer,), body=CompletionBody, streams=True),
    "post /v1/embeddings": Operation((EmbeddingsAnswer,), body=EmbeddingsBody),
    "post /v1/responses": Operation((ResponseAnswer,), body=ResponsesBody, streams=True),
    "get /v1/responses/{response_id}": Operation((ResponseAnswer,), parameters=_WHOLE),
    "delete /v1/responses/{response_id}": Operation((DeletedResponse,)),
    "post /v1/responses/{response_id}/cancel": Operation((), answers_well=False),
    "get /v1/responses/{response_id}/input_items": Operation((InputItems,), parameters=_ITEMS),
    "post /v1/messages": Operation(
        (MessageAnswer,), body=MessagesBody, errors=_ANTHROPIC, streams=True
    ),
    "post /v1/messages/count_tokens": Operation(
        (TokenCount,), body=MessagesBody, errors=_ANTHROPIC
    ),
    "get /v1/models": Operation(
        (OpenAIModels, AnthropicModels), errors=_ANY_ERROR, parameters=_SHAPE + _PAGE
    ),
    "get /v1/models/{model}": Operation(
        (OpenAIModel, AnthropicModel), errors=_ANY_ERROR, parameters=_SHAPE
    ),
}
_UNTYPED: Final = Operation(errors=_ANY_ERROR)
_UNTYPED_WITH_BODY: Final = Operation(body=JsonObject, errors=_ANY_ERROR, streams=True)
_INPUT_ITEMS: Final = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": CallOutputItem,
    "reasoning": ReasoningItem,
}
"""Items of `ResponsesBody.input` that say something; they are read one by one, by their `type`."""


def openapi_document(routes: Mapping[str, object]) -> dict[str, Any]:
    """Return the document for `routes`: a Falcon path to its resource."""
    known = list(_operations(routes))
    found = (kind for *_, operation in known for kind in _types(operation))
    types = list(dict.fromkeys((*found, ResponsesBody, *_INPUT_ITEMS.values())))
    schemas, components = msgspec.json.schema_components(types, ref_template=REF_TEMPLATE)
    schema_of = dict(zip(types, schemas, strict=True))
    members = components[ResponsesBody.__name__]["properties"]
    members["input"] = {**members["input"], "anyOf": _input_schemas(schema_of)}
    bind(components)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, words, operation in known:
        paths.setdefault(path, {})[method] = _described(path, method, words, operation, schema_of)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "cortex", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _input_schemas(schema_of: Mapping[Any, JsonObject]) -> list[JsonObject]:
    """Return what `input` of a response may be: text, items, or nothing."""
    items: list[JsonObject] = []
    for name, kind in _INPUT_ITEMS.items():
        typed: JsonObject = {"properties": {"type": {"const": name}}}
        if kind is not MessageItem:  # one with a role needs no type
            typed["required"] = ["type"]
        items.append({"allOf": [schema_of[kind], typed]})
    id_ = {"id": {"type": "string"}, "type": {"enum": ["item_reference", None]}}
    items.append({"type": "object", "properties": id_, "required": ["id"]})
    known = [*_INPUT_ITEMS, "item_reference"]
    other = {"type": {"type": "string", "not": {"enum": known}}}
    items.append({"type": "object", "properties": other, "required": ["type"]})
    array = {"type": "array", "items": {"anyOf": items}, "minItems": 1}
    return [{"type": "string", "minLength": 1}, array]


def _operations(routes: Mapping[str, object]) -> Iterator[tuple[str, str, str, Operation]]:
    for route, resource in routes.items():
        path = _PARAMETER.sub(r"{\g<name>}", route)
        for method in _METHODS:
            responder = getattr(resource, f"on_{method}", None)
            if responder is not None:
                untyped = _UNTYPED_WITH_BODY if method in _WITH_BODY else _UNTYPED
                operation = _OPERATIONS.get(f"{method} {path}", untyped)
                yield path, method, inspect.getdoc(responder) or "", operation


def _types(operation: Operation) -> Iterator[Any]:
    yield from (*operation.answers, *operation.errors)
    yield from (kind for kind in (operation.body, operation.unready) if kind is not None)


def _described(
    path: str, method: str, words: str, operation: Operation, schema_of: dict[Any, Any]
) -> dict[str, Any]:
    summary, _, more = words.partition("\n\n")
    found: dict[str, Any] = {
        "operationId": "_".join(re.findall(r"\w+", f"{method} {path}")),
        "summary": " ".join(summary.split()),
        "parameters": [*_path_parameters(path), *operation.parameters],
        "responses": _responses(operation, schema_of),
    }
    if more:
        found["description"] = more
    if operation.body is not None:
        schema = schema_of[operation.body]
        found["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    return found


def _responses(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    def said(description: str, kinds: Iterable[Any]) -> dict[str, Any]:
        schemas = [schema_of[kind] for kind in kinds]
        if not schemas:
            return {"description": description}
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        return {"description": description, "content": {JSON_TYPE: {"schema": schema}}}

    found: dict[str, Any] = {}
    if operation.answers_well:
        good = said("The answer.", operation.answers)
        if operation.streams:
            good["content"]["text/event-stream"] = {}
        found["200"] = good
        if not operation.answers:
            return found | {"503": {"description": "It takes no requests now."}}
    if operation.unready is not None:
        found["503"] = said("It takes no requests now.", (operation.unready,))
    found["4XX"] = said("The request cannot be served as it is.", operation.errors)
    found["5XX"] = said("It cannot be served now, or not here.", operation.errors)
    return found


def _path_parameters(path: str) -> list[JsonObject]:
    return [
        _parameter("path", name, type="string") | {"required": True}
        for name, _ in _PARAMETER.findall(path)
    ]
