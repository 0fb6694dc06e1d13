"""Tools with all that templates read of them, where a client left it out. Pure."""

from typing import Any, Final

from cortex_core.canonical import JsonObject

OF_SCHEMAS: Final = ("items", "additionalProperties")
OF_LISTS: Final = ("anyOf", "oneOf", "allOf")


def complete_tools(tools: list[JsonObject]) -> list[JsonObject]:
    """Return the tools with a description each, and properties that are objects with one type.

    JSON Schema asks for none of it, and templates that read it fail without. What is there stays;
    of several types the first that is not `null` does.

    Raises:
        RecursionError: parameters are nested too deeply.
    """
    return [{**tool, "function": _complete(tool["function"])} for tool in tools]


def _complete(function: JsonObject) -> JsonObject:
    parameters = _with_schemas(function["parameters"])
    return {
        "name": function["name"],
        "description": function.get("description") or "",
        "parameters": {"type": "object", "properties": {}, **parameters},
    }


def _property(schema: Any) -> JsonObject:
    whole: JsonObject = _with_schemas(schema) if isinstance(schema, dict) else {}
    types = whole.get("type")
    if isinstance(types, list):
        told = [each for each in types if each != "null"]
        whole["type"] = told[0] if told else "null"
        if told and len(told) < len(types):
            whole["nullable"] = True
    if not isinstance(whole.get("description"), str):
        whole["description"] = ""
    return whole


def _with_schemas(schema: JsonObject) -> JsonObject:
    """Return a schema whose inner ones are complete."""
    whole = dict(schema)
    properties = whole.get("properties")
    if isinstance(properties, dict):
        whole["properties"] = {name: _property(each) for name, each in properties.items()}
    for key in OF_SCHEMAS:
        if isinstance(whole.get(key), dict):
            whole[key] = _property(whole[key])
    for key in OF_LISTS:
        if isinstance(whole.get(key), list):
            whole[key] = [_property(each) for each in whole[key]]
    return whole
