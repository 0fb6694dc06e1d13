"""Types and values are put into the words of who writes a TOML file."""

import datetime as dt
import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from cortex_core.config.expectation import expected, shown


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Table(msgspec.Struct):
    key: int = 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "an integer"),
        (Annotated[int, Meta(gt=0, lt=9)], "an integer > 0 and < 9"),
        (Annotated[int, Meta(ge=16, multiple_of=16)], "an integer >= 16 and a multiple of 16"),
        (Annotated[float, Meta(le=1)], "a number <= 1"),
        (Annotated[int, Meta(ge=1)] | None, "an integer >= 1"),
        (bool, "true or false"),
        (str, "a string"),
        (
            Annotated[str, Meta(min_length=1, max_length=9)],
            "a string of at least 1 characters and of at most 9 characters",
        ),
        (Annotated[str, Meta(pattern="^a", description="a name")], "a string matching ^a"),
        (Literal["lru", "priority"], 'one of "lru", "priority"'),
        (Colour, 'one of "red", "blue"'),
        (Path, "a path"),
        (dt.datetime, "a date and time"),
        (Table, "a table"),
        (dict[str, int], "a table"),
        (list[Table], "an array, each item a table"),
        (
            Annotated[list[int], Meta(min_length=1, max_length=2)],
            "an array of at least 1 and at most 2 items, each item an integer",
        ),
        (int | str, "an integer or a string"),
        (bytes, "another value"),
        (Any, "anything"),
    ],
)
def test_types_are_put_into_words(kind: Any, words: str) -> None:
    assert expected(kind) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("fünf", '"fünf"'),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": 1}, "a table"),
        ([1], "an array"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ("x" * 100, '"' + "x" * 59 + "…"),
    ],
)
def test_values_are_shown_as_toml_would(value: Any, text: str) -> None:
    assert shown(value) == text
