"""OpenAI's embeddings: bodies to requests, vectors to bodies."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    TextPrompt,
    TokensPrompt,
    Usage,
)
from cortex_core.canonical_embedding import EmbedAnswer
from cortex_core.dialects.openai_embeddings import DecodedEmbedding, OpenAIEmbeddings
from cortex_core.errors import InvalidRequest, QueueFull
from cortex_core.ids import RequestId

DIALECT = OpenAIEmbeddings()
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)


def decode(body: dict[str, Any]) -> DecodedEmbedding:
    whole = {"model": "mini"} | body
    return DIALECT.decode_request(json.dumps(whole).encode(), request_id=RequestId("r"))


def answer(decoded: DecodedEmbedding, *vectors: bytes) -> dict[str, Any]:
    pieces = DIALECT.encode_answer(decoded, EmbedAnswer(vectors, Usage(7, 0)))
    read: dict[str, Any] = json.loads(b"".join(pieces))
    return read


@pytest.mark.parametrize(
    ("given_input", "expected"),
    [
        ("hi", (TextPrompt("hi"),)),
        (["hi", "there"], (TextPrompt("hi"), TextPrompt("there"))),
        ([5, 6], (TokensPrompt((5, 6)),)),
        ([[5, 6], [7]], (TokensPrompt((5, 6)), TokensPrompt((7,)))),
        (["hi", [7]], (TextPrompt("hi"), TokensPrompt((7,)))),
    ],
)
def test_every_form_of_input_is_read(given_input: object, expected: object) -> None:
    assert decode({"input": given_input}).request.inputs == expected


def test_options_are_read_and_the_user_is_not_given_away() -> None:
    body = {"input": "hi", "encoding_format": "base64", "dimensions": 8, "user": "me@example.org"}
    decoded = decode(body)
    assert decoded.encoding == "base64"
    assert decoded.request.dimensions == 8
    assert decoded.request.principal is not None
    assert "example" not in decoded.request.principal
    assert decode({"input": "hi", "dimensions": None, "user": None}).encoding == "float"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["hi", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": ["hi"] * 2049}, "input"),
        ({"input": [1, "hi"]}, "input[1]"),
        ({"input": ["hi", 1]}, "input[1]"),
        ({"input": [1, -1]}, "input[1]"),
        ({"input": [[1, 2**40]]}, "input[0][1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": {"text": "hi"}}, "input"),
        ({"input": "hi", "model": " "}, "model"),
        ({"input": "hi", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "hi", "dimensions": 0}, "dimensions"),
        ({"input": "hi", "dimensions": 1.5}, "dimensions"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(body)
    assert (caught.value.param or "").replace("[...]", "[0]") == param


@given(st.lists(FLOATS, min_size=1, max_size=5))
def test_both_encodings_carry_the_same_numbers(vectors: list[list[float]]) -> None:
    raw = [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]
    floats = answer(decode({"input": "hi"}), *raw)
    texts = answer(decode({"input": "hi", "encoding_format": "base64"}), *raw)

    assert [each["embedding"] for each in floats["data"]] == vectors
    assert [base64.b64decode(each["embedding"]) for each in texts["data"]] == raw
    assert [each["index"] for each in floats["data"]] == list(range(len(vectors)))


def test_the_answer_has_openais_form_and_the_clients_name_of_the_model() -> None:
    assert answer(decode({"input": "hi"}), struct.pack("<2f", 0.5, -1.0)) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
        "model": "mini",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_errors_have_openais_envelope() -> None:
    error = QueueFull("cannot queue", retry_after_s=3.0).info()
    reply = DIALECT.encode_error(error, request_id=RequestId("r"))
    assert reply.status == 429
    assert json.loads(reply.body)["error"]["code"] == "queue_full"
    assert reply.headers["retry-after"] == "3"
