"""What is read of sentence-transformers' files, and what is refused."""

import json
from pathlib import Path

import pytest

from cortex_core.errors import ModelLoadFailed
from neurond.sources.prepared import Pooling
from neurond.sources.sentence_transformers import is_module_config, max_tokens_of, pooling_of

TRANSFORMER = {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def write(folder: Path, modules: object, **flags: bool) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    config = {"word_embedding_dimension": 384, "include_prompt": True} | flags
    (folder / "1_Pooling/config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("flag", "mode"),
    [
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_lasttoken", "last"),
        ("pooling_mode_max_tokens", "max"),
    ],
)
def test_the_one_mode_that_is_on_is_taken(tmp_path: Path, flag: str, mode: str) -> None:
    flags = {"pooling_mode_mean_tokens": False} | {flag: True}
    write(tmp_path, [TRANSFORMER, POOLING], **flags)
    assert pooling_of(tmp_path) == Pooling(mode, normalize=False)


def test_normalisation_is_a_module(tmp_path: Path) -> None:
    write(tmp_path, [TRANSFORMER, POOLING, NORMALIZE], pooling_mode_cls_token=True)
    assert pooling_of(tmp_path) == Pooling("cls", normalize=True)


def test_a_folder_without_the_files_says_nothing(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) is None
    assert max_tokens_of(tmp_path) is None
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    assert max_tokens_of(tmp_path) == 256


@pytest.mark.parametrize(
    ("modules", "flags"),
    [
        ([TRANSFORMER, POOLING, DENSE], {"pooling_mode_cls_token": True}),
        ([TRANSFORMER], {}),
        ([TRANSFORMER, POOLING], {}),
        ([TRANSFORMER, POOLING], {"pooling_mode_weightedmean_tokens": True}),
        (
            [TRANSFORMER, POOLING],
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        ),
        ({"no": "list"}, {}),
    ],
    ids=["dense", "no pooling", "no mode", "unknown mode", "two modes", "no list"],
)
def test_what_is_not_served_is_refused(
    tmp_path: Path, modules: object, flags: dict[str, bool]
) -> None:
    write(tmp_path, modules, **flags)
    with pytest.raises(ModelLoadFailed):
        pooling_of(tmp_path)


def test_module_configs_are_told_from_other_files() -> None:
    names = ["1_Pooling/config.json", "config.json", "onnx/config.json", "1_Pooling/a/config.json"]
    assert [name for name in names if is_module_config(name)] == ["1_Pooling/config.json"]
