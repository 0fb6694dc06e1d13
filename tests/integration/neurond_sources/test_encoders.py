"""Encoders as they are prepared: what they can do, how long inputs are, how they are pooled."""

import json
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedModel, RobertaConfig
from transformers import RobertaForMaskedLM as Roberta

from cortex_core.ids import ModelId
from neurond.sources.file import FileSource
from neurond.sources.prepare import prepare
from neurond.sources.prepared import Pooling, PreparedModel
from neurond.text.model_text import ModelText

SIZES = {
    "vocab_size": 12,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 34,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "##s", "run", "here", ".", "b"]
MODULES = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]


def save(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(folder)


def prepared(source: Path, folder: Path) -> PreparedModel:
    folder.mkdir()
    FileSource().fetch(str(source), folder, lambda _: None)
    return prepare(folder, ModelId(f"file:{source}"))


def test_an_encoder_embeds_as_its_files_say(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save(BertModel(BertConfig(**SIZES)), source)
    (source / "modules.json").write_text(json.dumps(MODULES))
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')

    made = prepared(source, tmp_path / "made")

    assert made.capabilities == ("embeddings",)
    assert made.pooling == Pooling("cls", normalize=False)
    assert made.context_tokens == 20
    text = ModelText.read(tmp_path / "made", made, None)
    ids = text.tokenizer.encode_whole("Dogs run.")
    assert [WORDS[id_] for id_ in ids] == ["[CLS]", "dog", "##s", "run", ".", "[SEP]"]


@pytest.mark.parametrize("kind", [BertModel, Roberta], ids=["bert", "roberta"])
def test_an_encoder_without_these_files_is_pooled_by_its_mean(
    kind: type[PreTrainedModel], tmp_path: Path
) -> None:
    config = RobertaConfig(**SIZES) if kind is Roberta else BertConfig(**SIZES)
    save(kind(config), tmp_path / "source")
    made = prepared(tmp_path / "source", tmp_path / "made")
    assert made.pooling == Pooling("mean", normalize=True)
    assert made.context_tokens == 32
    assert not made.generates
