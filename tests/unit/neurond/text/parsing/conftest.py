"""Fixtures of the parsers' tests."""

import pytest

from tests.unit.neurond.text.parsing.held_families import Family, tokenizer


@pytest.fixture(scope="module", params=[True, False], ids=["special", "plain"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tokenizer(special=request.param), tmp_path_factory.mktemp("family"))
