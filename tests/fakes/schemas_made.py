"""JSON schemas of many kinds, made by combining small ones; and a strategy for more."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

NUMBERS: list[Schema] = [
    {"type": "integer"},
    {"type": "number"},
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": -1.5},
    {"type": "integer", "multipleOf": 5},
    {"type": "number", "multipleOf": 0.25},
    {"type": "integer", "minimum": 1e3},
]
STRINGS: list[Schema] = [
    {"type": "string"},
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "string", "pattern": "^[a-c]+$"},
    {"type": "string", "pattern": "x"},
    {"type": "string", "pattern": "^(ab|cd){1,2}$", "maxLength": 4},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "no-such-format"},
]
PLAIN: list[Schema] = [
    {"type": "boolean"},
    {"type": "null"},
    {"const": "a"},
    {"const": {"a": [1, None]}},
    {"enum": ["red", "green", 3, None, [1], {"a": 1}]},
    {"enum": []},
    {"type": ["string", "null"]},
    {"type": ["integer", "boolean", "array"]},
    {"type": "string", "enum": ["é", '"', "\\", "\n", "日"]},
    {"type": "integer", "enum": [1, "a", 2]},
    {"title": "any", "description": "no more than words", "default": 3, "examples": [1]},
]
SMALL = [*NUMBERS, *STRINGS, *PLAIN]
ODD: list[Schema] = [
    {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}},
    {"type": "array", "contains": {"type": "integer"}},
    {"type": "array", "contains": {"type": "integer"}, "minContains": 2},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "boolean"}, "unevaluatedItems": False},
    {"type": "object", "minProperties": 1, "maxProperties": 2},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]$"}},
    {"type": "object", "patternProperties": {"^n_": {"type": "integer"}}},
    {
        "type": "object",
        "patternProperties": {"^n_": {"type": "integer"}, "^s_": {"type": "string"}},
        "additionalProperties": False,
    },
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    {"type": "object", "required": ["never described"]},
    {"type": "object", "properties": {"a": False}},
    {"type": "object", "properties": {"a": True}, "required": ["a"], "additionalProperties": False},
    {"type": "object", "properties": {"": {"const": 1}, 'qu"ote': {"const": 2}, "é": {}}},
    {"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"const": "a"}},
    {"not": {"type": "integer"}},
    {"not": {}},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"const": 1}, {"const": 1}]},
    {"anyOf": [{"minimum": 3}, {"maxLength": 2}]},
    {"anyOf": []},
    {"allOf": [{"type": "integer"}, {"minimum": 2}, {"maximum": 4}]},
    {"allOf": [{"type": "integer"}, {"type": "string"}]},
    {"allOf": [{"pattern": "^a"}, {"pattern": "b$"}], "type": "string"},
    {
        "allOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 2}, "b": {"type": "null"}}},
        ],
        "type": "object",
    },
    {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "minimum": 5, "maximum": 6},
    {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["kids"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/tree",
    },
    {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    {"$ref": "#"},
    {"definitions": {"a/b": {"const": 1}}, "$ref": "#/definitions/a~1b"},
    {"$anchor": "here", "type": "array", "items": {"$ref": "#here"}, "maxItems": 1},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "integer", "maximum": 3},
    {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "integer",
        "minimum": 3,
        "exclusiveMinimum": True,
    },
    {"type": "string", "contentEncoding": "base64"},
    {"type": "object", "nullable": True},
    {"x-vendor": {"a": 1}, "type": "null"},
    {"type": "array", "minItems": 3, "maxItems": 2},
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"type": "integer", "minimum": 2.5, "maximum": 2.7},
    {"type": "integer", "minimum": 2**60, "maximum": 2**60 + 3},
    {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    {"type": "integer", "minimum": 2**64},
    {"const": 2**53 + 1},
    {"enum": [[{"a": -(2**70)}], 1]},
    {"const": -0.0},
    {"const": 1.5e300},
    {"type": "number", "minimum": 0.1, "maximum": 0.1000001},
    {"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True, "items": {"const": 1}},
]


def schemas_of_many_kinds() -> list[Schema]:
    """Return more than 200 schemas, the same every time."""
    return [*SMALL, *ODD, *_holding(SMALL)]


def _holding(small: list[Schema]) -> Iterator[Schema]:
    for one in small:
        yield {"type": "array", "items": one, "maxItems": 2}
        yield {"type": "array", "items": one, "minItems": 1, "maxItems": 3}
        yield _record({"a": one}, required=["a"])
    for one, other in pairwise(small):
        yield {"anyOf": [one, other]}
        yield _record({"a": one, "b": other}, required=["b"])
        yield _record({"a": one, "b": _record({"c": other})}, required=["a", "b"])


def _record(properties: Schema, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }


NAMES = st.text('abé "\\', max_size=3)


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    properties = st.dictionaries(NAMES, inner, max_size=4)
    return properties.flatmap(
        lambda held: (
            st.lists(st.sampled_from(sorted(held)), unique=True).map(
                lambda required: _record(held, required)
            )
            if held
            else st.just(_record({}))
        )
    )


def _arrays(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda items, least, more: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + more,
        },
        inner,
        st.integers(0, 2),
        st.integers(0, 2),
    )


def _choices(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda held: {"anyOf": held})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)
RANGES = st.tuples(st.integers(-500, 500), st.integers(0, 500)).map(
    lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
)
LENGTHS = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(
    lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[0] + pair[1]}
)
SCHEMAS = st.recursive(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "number"}])
    | RANGES
    | LENGTHS
    | VALUES.map(lambda value: {"const": value})
    | st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    lambda inner: _objects(inner) | _arrays(inner) | _choices(inner),
    max_leaves=6,
)
"""Schemas that are all supported, and that each have instances."""
