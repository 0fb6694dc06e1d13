"""Words for what a type takes, and for what stood there instead."""

import json
from pathlib import Path
from typing import Any

from msgspec import inspect

_SIMPLE: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a date and time",
    inspect.DateType: "a date",
    inspect.TimeType: "a time of day",
    inspect.StructType: "a table",
    inspect.DictType: "a table",
    inspect.AnyType: "anything",
}
_SHOWN_CHARACTERS = 60


def expected(kind: Any) -> str:
    """Say what values the type `kind` takes, as in "an integer >= 1"."""
    return _expected(inspect.type_info(kind))


def _expected(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        return _expected(kind.type)
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_expected(t) for t in kind.types if not isinstance(t, inspect.NoneType))
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(shown(value) for value in kind.values)
    if isinstance(kind, inspect.EnumType):
        return "one of " + ", ".join(shown(member.value) for member in kind.cls)
    if isinstance(kind, inspect.IntType):
        return "an integer" + _bounds(kind)
    if isinstance(kind, inspect.FloatType):
        return "a number" + _bounds(kind)
    if isinstance(kind, inspect.StrType):
        return "a string" + _text_limits(kind)
    if isinstance(kind, inspect.CustomType):
        return "a path" if issubclass(kind.cls, Path) else f"a {kind.cls.__name__}"
    if isinstance(kind, inspect.CollectionType):
        return "an array" + _lengths(kind) + ", each item " + _expected(kind.item_type)
    return _SIMPLE.get(type(kind), "another value")


def shown(value: Any) -> str:
    """Write a value as TOML would, cut short."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool | int | float | str):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    limits = [
        f"{sign} {bound}"
        for sign, bound in ((">=", kind.ge), (">", kind.gt), ("<=", kind.le), ("<", kind.lt))
        if bound is not None
    ]
    if kind.multiple_of is not None:
        limits.append(f"a multiple of {kind.multiple_of}")
    return " " + " and ".join(limits) if limits else ""


def _text_limits(kind: inspect.StrType) -> str:
    limits = []
    if kind.min_length is not None:
        limits.append(f"of at least {kind.min_length} characters")
    if kind.max_length is not None:
        limits.append(f"of at most {kind.max_length} characters")
    if kind.pattern is not None:
        limits.append(f"matching {kind.pattern}")
    return " " + " and ".join(limits) if limits else ""


def _lengths(kind: inspect.CollectionType) -> str:
    limits = []
    if kind.min_length is not None:
        limits.append(f"at least {kind.min_length}")
    if kind.max_length is not None:
        limits.append(f"at most {kind.max_length}")
    return f" of {' and '.join(limits)} items" if limits else ""
