"""Whatever the schema: it is refused, or every answer under it is one of its instances."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from cortex_core.errors import InvalidRequest
from tests.fakes.grammar_walks import Speller
from tests.fakes.schemas_made import SCHEMAS, Schema, schemas_of_many_kinds
from tests.fakes.tokenizers_made import byte_level

MADE = schemas_of_many_kinds()


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Speller:
    return Speller(byte_level(), tmp_path_factory.mktemp("model"))


def check(schema: Schema, answer: bytes | None) -> None:
    assert answer is not None, "no end"
    value: Any = json.loads(answer.decode())
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)


@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_answers_are_instances(speller: Speller, schema: Schema, seed: int) -> None:
    check(schema, speller.walk(speller.schema(schema), seed))


def test_schemas_of_many_kinds_are_kept_to_or_refused(speller: Speller) -> None:
    refused = {}
    for number, schema in enumerate(MADE):
        try:
            grammar = speller.schema(schema)
        except InvalidRequest as ex:
            refused[number] = ex
            continue
        for seed in range(3):
            check(schema, speller.walk(grammar.fork(), seed))
    assert len(MADE) > 200
    assert len(refused) < len(MADE) / 5
    assert all(ex.param == "response_format" for ex in refused.values())
