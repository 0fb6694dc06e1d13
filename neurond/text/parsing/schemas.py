"""What the schema of a tool says of each argument. Pure.

Schemas are the client's: whatever stands where JSON Schema wants something else says nothing here.
"""

from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from cortex_core.canonical import JsonObject, Tool

MAX_DEPTH: Final = 64
"""Of what is looked into; deeper parts stay as they are."""
MAX_WRITTEN_BYTES: Final = 1 << 17
"""Of definitions, where each argument may take all of them along."""
_DEFINITIONS: Final = ("$defs", "definitions")
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas")
"""Keywords under which each key is a name and each value a schema."""
_LITERALS: Final = ("const", "enum", "default", "examples")
_BOUNDS: Final = frozenset(
    {"enum", "const", "pattern", "format", "minLength", "maxLength", "allOf"}
)
_ADDS: Final = frozenset({"allOf", "anyOf", "oneOf", "$ref", "patternProperties"})
"""Keywords that may allow properties that `properties` does not name."""


class Argument(NamedTuple):
    """One of a tool's arguments. `schema` stands on its own."""

    key: str
    schema: JsonObject
    required: bool

    @property
    def is_text(self) -> bool:
        """Whether it takes strings and, but for null, nothing else."""
        return is_text_schema(self.schema, self.schema)

    @property
    def takes_null(self) -> bool:
        """Whether it says that it takes null."""
        return takes_null(self.schema, self.schema)

    @property
    def is_free_text(self) -> bool:
        """Whether any string will do."""
        alternatives = _alternatives(self.schema, self.schema)
        return self.is_text and not any(_BOUNDS & each.keys() for each in alternatives)

    @property
    def choices(self) -> list[str] | None:
        """The texts it takes, where it names them all; null is one of them."""
        texts: list[str] = []
        for each in _alternatives(self.schema, self.schema):
            literals = [None] if each.get("type") == "null" else _literals(each)
            if literals is None or not all(isinstance(one, str | None) for one in literals):
                return None
            texts += ["null" if one is None else one for one in literals]
        return texts or None


def arguments_schema(tool: Tool) -> JsonObject:
    """Return the schema of a tool's arguments: an object, where it can be without other keys."""
    schema: JsonObject = {"type": "object", **(tool.parameters or {"properties": {}})}
    if "properties" in schema and (tool.strict or _names_all(schema)):
        schema.setdefault("additionalProperties", False)
    return schema


def is_closed(tool: Tool) -> bool:
    """Whether a tool takes no arguments but those that its schema names at its top."""
    schema = arguments_schema(tool)
    return (
        schema.get("additionalProperties") is False
        and "properties" in schema
        and not (_ADDS & schema.keys())
    )


def call_schema(tool: Tool, key: str) -> JsonObject:
    """Return the schema of an object with a tool's name and, under `key`, its arguments."""
    root = arguments_schema(tool)
    arguments = _standalone(root, root, strict=tool.strict)
    definitions = arguments.pop("$defs", {})
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, key: arguments},
        "required": ["name", key],
        "additionalProperties": False,
        "$defs": definitions,
    }


def arguments_of(tool: Tool) -> list[Argument] | None:
    """Return a tool's arguments one by one.

    None where its schema does not name them, or has so many definitions that they are too much
    beside each argument.
    """
    root = arguments_schema(tool)
    schema = root if "properties" in root else _followed(root, root)
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return None
    if not properties and schema.get("additionalProperties", False) is not False:
        return None
    required = schema.get("required")
    keys = required if isinstance(required, list) else []
    needed = dict.fromkeys(key for key in keys if isinstance(key, str))
    if _definitions_bytes(root) * len(properties) > MAX_WRITTEN_BYTES:
        return None
    named = {**properties, **{key: {} for key in needed if key not in properties}}
    return [
        Argument(key, _standalone(each, root, strict=tool.strict), key in needed)
        for key, each in named.items()
    ]


def _definitions_bytes(root: JsonObject) -> int:
    return len(msgspec.json.encode([root[key] for key in _DEFINITIONS if key in root]))


def argument_schema(parameters: JsonObject, argument: str) -> JsonObject:
    """Return the schema of one argument, which may refer to others; empty where there is none."""
    schema = parameters if "properties" in parameters else _followed(parameters, parameters)
    properties = schema.get("properties")
    found = properties.get(argument) if isinstance(properties, dict) else None
    return found if isinstance(found, dict) else {}


def is_text_schema(schema: JsonObject, root: JsonObject) -> bool:
    """Whether a schema that stands in `root` takes strings and, but for null, nothing else."""
    kinds = _kinds(schema, root)
    return "string" in kinds and kinds <= {"string", "null"}


def takes_null(schema: JsonObject, root: JsonObject) -> bool:
    """Whether a schema that stands in `root` says that it takes null."""
    return "null" in _kinds(schema, root)


def _names_all(schema: JsonObject) -> bool:
    """Whether the properties that a schema names are all that there can be."""
    properties, required = schema["properties"], schema.get("required", [])
    if _ADDS & schema.keys() or not isinstance(properties, dict) or not isinstance(required, list):
        return False
    return all(key in properties for key in required if isinstance(key, str))


def _kinds(schema: JsonObject, root: JsonObject) -> set[str]:
    """Return the types of what a schema takes; an empty text where it does not say."""
    kinds: set[str] = set()
    for each in _alternatives(schema, root):
        literals, types = _literals(each), each.get("type")
        if literals is not None:
            kinds |= {_KIND_OF.get(type(one), "") for one in literals}
        elif isinstance(types, list):
            kinds |= {kind for kind in types if isinstance(kind, str)}
        else:
            kinds.add(types if isinstance(types, str) else "")
    return kinds


_KIND_OF: Final[dict[type, str]] = {str: "string", type(None): "null"}


def _literals(schema: JsonObject) -> list[Any] | None:
    """Return all that a schema takes where it lists that."""
    if "const" in schema:
        return [schema["const"]]
    literals = schema.get("enum")
    return literals if isinstance(literals, list) else None


def _alternatives(schema: JsonObject, root: JsonObject) -> list[JsonObject]:
    """Return what a schema is one of, local references followed."""
    found: list[JsonObject] = []
    left: list[Any] = [schema]
    seen: set[int] = set()
    while left:
        each = _followed(left.pop(), root)
        if each and id(each) in seen:
            continue
        seen.add(id(each))
        branches = each.get("anyOf") or each.get("oneOf")
        if isinstance(branches, list) and not {"type", "enum", "const"} & each.keys():
            left += reversed(branches)
        else:
            found.append(each)
    return found


def _followed(schema: Any, root: JsonObject) -> JsonObject:
    """Return the schema that a local reference leads to; empty where it leads nowhere."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict):
            break
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = _target(reference, root)
    return {}


def _target(reference: str, root: JsonObject) -> Any:
    """Return what a pointer into `root` points at (RFC 6901); None where it is none."""
    place: Any = root
    if reference == "#":
        return place
    if not reference.startswith("#/"):
        return None
    for part in unquote(reference).split("/")[1:]:
        if not isinstance(place, dict):
            return None
        place = place.get(part.replace("~1", "/").replace("~0", "~"))
    return place


def _standalone(schema: Any, root: JsonObject, *, strict: bool) -> JsonObject:
    """Return a schema that stands in `root` on its own, with the definitions that it reaches.

    References that lead nowhere stay only where the schema is to be kept to strictly.
    """
    names: dict[str, str] = {}
    targets: list[Any] = []

    def copied(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            return value
        if isinstance(value, list):
            return [copied(each, depth + 1) for each in value]
        if not isinstance(value, dict):
            return value
        result = {
            key: keyword(key, each, depth + 1)
            for key, each in value.items()
            if key not in _DEFINITIONS
        }
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return result
        target = _target(reference, root)
        if not isinstance(target, dict | bool):
            return result if strict else {}
        if reference not in names:
            names[reference] = f"d{len(names)}"
            targets.append(target)
        return {**result, "$ref": f"#/$defs/{names[reference]}"}

    def keyword(key: str, value: Any, depth: int) -> Any:
        if key in _LITERALS:
            return value
        if key in _NAMED and isinstance(value, dict):
            return {name: copied(each, depth + 1) for name, each in value.items()}
        return copied(value, depth)

    own = copied(schema, 0) if isinstance(schema, dict) else {}
    definitions: JsonObject = {}
    for target in targets:  # which grow with each
        definitions[f"d{len(definitions)}"] = copied(target, 0)
    return {**own, "$defs": definitions} if definitions else own
