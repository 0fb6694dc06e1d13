"""Formats on their way to the device."""

import msgspec
import pytest

from cortex_core.canonical import ResponseFormat
from cortex_core.errors import InvalidRequest
from neurond.text.formats import MAX_FORMAT_BYTES, encoded_format


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "wanted",
    [
        ResponseFormat("json_object"),
        ResponseFormat("json_schema", schema={"b": 1, "a": [None, "ß"]}, strict=False),
        ResponseFormat("regex", text="[0-9]+"),
    ],
    ids=lambda wanted: wanted.kind,
)
def test_a_format_arrives_as_it_was(wanted: ResponseFormat) -> None:
    encoded = encoded_format(wanted)
    assert encoded is not None
    assert msgspec.json.decode(encoded, type=ResponseFormat) == wanted


def test_no_format_is_none() -> None:
    assert encoded_format(None) is None


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (ResponseFormat("json_schema"), "needs its schema"),
        (ResponseFormat("regex", schema={}), "a regex needs its text"),
        (ResponseFormat("grammar", text=""), "a grammar needs its text"),
        (ResponseFormat("json_schema", schema=nested(100_000)), "nested too deeply"),
        (ResponseFormat("regex", text="a" * MAX_FORMAT_BYTES), "bytes, 262144 are the most"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_what_is_no_format_is_refused(wanted: ResponseFormat, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        encoded_format(wanted)
    assert caught.value.param == "response_format"
    assert caught.value.message.startswith("cannot hold the answer to response_format: ")
