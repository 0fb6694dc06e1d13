"""What schemas say of arguments: text or not, null, and what each needs to stand on its own."""

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import JsonObject, Tool
from neurond.text.parsing.schemas import arguments_of, arguments_schema, call_schema
from neurond.text.parsing.segments import Tools

LISTS: JsonObject = {
    "type": "object",
    "properties": {
        "text": {"$ref": "#/$defs/text"},
        "same": {"$ref": "#/properties/text"},
        "tree": {"$ref": "#/$defs/tree"},
        "number": {"type": "integer"},
    },
    "$defs": {
        "text": {"type": "string", "maxLength": 3},
        "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
        "other": {"enum": ["x" * 1000]},
    },
}
KEYS = ["type", "enum", "const", "anyOf", "$ref", "properties", "required", "$defs", "allOf", "a"]
ATOMS = ["string", "null", "#", "#/$defs/a", "#/properties/a", "#a", "a", None, True, 1]
ANY = st.recursive(
    st.sampled_from(ATOMS),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(KEYS), each),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYS), ANY))
def test_no_schema_is_too_odd_to_look_into(parameters: JsonObject) -> None:
    tool = Tool("t", None, parameters)
    for each in arguments_of(tool) or ():
        assert each.is_text or not each.is_free_text
        assert each.choices is None or each.choices
    assert call_schema(tool, "arguments")["required"] == ["name", "arguments"]
    Tools((tool,)).value("t", "a", "5")


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "null", "null"),
        ({"type": ["string", "null"]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "123", "123"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "None", None),
        ({"oneOf": [{"type": "null"}, {"$ref": "#/$defs/kind"}]}, "1", "1"),
        ({"$ref": "#/$defs/kind"}, "2", "2"),
        ({"$ref": "#/properties/first"}, "[]", "[]"),
        ({"enum": ["1", "2", None]}, "1", "1"),
        ({"enum": ["1", 2]}, "2", 2),
        ({"const": "7"}, "7", "7"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "5", 5),
        ({"$ref": "#/$defs/none"}, "5", 5),
        ({"$ref": "#/$defs/loop"}, "5", 5),
        ({"anyOf": [{"$ref": "#/$defs/loop"}, {"type": "string"}]}, "5", 5),
        ({"anyOf": "no list", "type": {"not": "a type"}}, "5", 5),
    ],
)
def test_text_without_quotes_is_what_the_schema_takes(
    schema: JsonObject, text: str, value: object
) -> None:
    definitions = {"kind": {"enum": ["1", "2"]}, "loop": {"$ref": "#/$defs/loop"}}
    properties = {"first": {"type": "string"}, "it": schema}
    tools = Tools((Tool("t", None, {"properties": properties, "$defs": definitions}),))
    assert tools.value("t", "it", text) == value


def test_alternatives_that_name_each_other_come_to_an_end() -> None:
    twice = {"anyOf": [{"$ref": "#/$defs/twice"}, {"$ref": "#/$defs/twice"}, {"type": "string"}]}
    parameters: JsonObject = {
        "properties": {"it": {"$ref": "#/$defs/twice"}},
        "$defs": {"twice": twice},
    }
    assert Tools((Tool("t", None, parameters),)).value("t", "it", "5") == "5"


def test_an_argument_has_the_definitions_that_it_reaches_and_no_others() -> None:
    arguments = {each.key: each for each in arguments_of(Tool("t", None, LISTS)) or ()}
    assert arguments["number"].schema == {"type": "integer"}
    assert len(msgspec.json.encode([each.schema for each in arguments.values()])) < 600
    for key, right, wrong in [("text", "abc", "abcd"), ("same", "abc", 1), ("tree", [[]], [[1]])]:
        jsonschema.validate(right, arguments[key].schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, arguments[key].schema)
    assert arguments["same"].is_text
    assert not arguments["same"].is_free_text


def test_what_is_no_reference_is_left_alone() -> None:
    schema: JsonObject = {
        "properties": {"$ref": {"type": "string"}, "enum": {"$ref": "#/properties/it"}},
        "enum": [{"$ref": "#/properties/it"}],
    }
    parameters: JsonObject = {"properties": {"it": schema}}
    [argument] = arguments_of(Tool("t", None, parameters)) or ()
    assert argument.schema["enum"] == schema["enum"]
    assert argument.schema["properties"]["$ref"] == {"type": "string"}
    assert argument.schema["properties"]["enum"] == {"$ref": "#/$defs/d0"}


@pytest.mark.parametrize("reference", ["https://x.y/z", "#name", "#/$defs/no", "#/type"])
def test_a_reference_that_leads_nowhere_holds_only_strict_tools(reference: str) -> None:
    parameters: JsonObject = {"type": "object", "properties": {"it": {"$ref": reference}}}
    assert [each.schema for each in arguments_of(Tool("t", None, parameters)) or ()] == [{}]
    [held] = arguments_of(Tool("t", None, parameters, strict=True)) or ()
    assert held.schema == {"$ref": reference}


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        (None, []),
        ({"type": "object"}, None),
        ({"type": "object", "properties": None}, None),
        ({"properties": {}, "additionalProperties": True}, None),
        ({"properties": {"a": {}}, "required": ["b"]}, ["a", "b"]),
        ({"$ref": "#/$defs/all", "$defs": {"all": {"properties": {"c": {}}}}}, ["c"]),
    ],
)
def test_arguments_are_those_that_the_schema_names(
    parameters: JsonObject | None, keys: list[str] | None
) -> None:
    arguments = arguments_of(Tool("t", None, parameters))
    assert (None if arguments is None else [each.key for each in arguments]) == keys


@pytest.mark.parametrize(
    "more",
    [
        {"required": ["zz"]},
        {"allOf": [{"properties": {"b": {}}}]},
        {"patternProperties": {"b": {}}},
    ],
)
def test_other_keys_are_forbidden_where_none_can_be_meant(more: dict[str, Any]) -> None:
    schema: JsonObject = {"properties": {"a": {}}, **more}
    assert "additionalProperties" not in arguments_schema(Tool("t", None, schema))
    assert arguments_schema(Tool("t", None, schema, strict=True))["additionalProperties"] is False
    plain: JsonObject = {"properties": {"a": {}}, "required": ["a"]}
    assert arguments_schema(Tool("t", None, plain))["additionalProperties"] is False


def test_a_call_as_a_schema_takes_the_tools_arguments() -> None:
    schema = call_schema(Tool("t", None, LISTS), "arguments")
    jsonschema.validate({"name": "t", "arguments": {"tree": [[]]}}, schema)
    for arguments in ({"tree": [1]}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"name": "t", "arguments": arguments}, schema)


def test_definitions_that_are_too_much_beside_each_argument() -> None:
    definitions = {"a": {"type": "string", "enum": ["x" * 30_000]}}
    for count, is_written in ((3, True), (300, False)):
        properties = {f"p{number}": {"$ref": "#/$defs/a"} for number in range(count)}
        tool = Tool("t", None, {"properties": properties, "$defs": definitions})
        assert (arguments_of(tool) is not None) is is_written
