"""Tokenizers of real models are of the form that is read in pieces, and come out the same."""

import pytest
from tokenizers import Tokenizer

from cortex_core.ids import ModelId
from neurond.text import tokenizer_file
from neurond.text.tokenizer_file import read_tokenizer
from tests.fakes.model_cache import GEMMA3, SMOLLM2, cached_model

pytestmark = pytest.mark.model


@pytest.mark.parametrize("model_id", [SMOLLM2, GEMMA3])
def test_they_are_read_in_pieces(model_id: ModelId, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cached_model(model_id) / "tokenizer.json"
    whole = Tokenizer.from_file(str(path))

    monkeypatch.setattr(tokenizer_file.Tokenizer, "from_file", None)

    assert read_tokenizer(path).to_str() == whole.to_str()
