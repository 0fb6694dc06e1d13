"""The example files: every key of the types is in them, at its default."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cortexd.config import CortexConfig, ModelConfig, ModelsConfig
from neurond.config import NeuronConfig
from tests.packaging.conftest import REPOSITORY

ETC = REPOSITORY / "etc"


def keys_mentioned(path: Path) -> set[str]:
    """Keys that stand in the file, commented out or not."""
    return set(re.findall(r"^#?\s*\"?(\w+)[\w.\"]* = ", path.read_text(), re.MULTILINE))


def field_names(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def leaf_keys(value: msgspec.Struct) -> set[str]:
    """Names of the keys below `value` that are no tables of their own."""
    names: set[str] = set()
    for name in field_names(type(value)):
        child = getattr(value, name)
        names |= leaf_keys(child) if isinstance(child, msgspec.Struct) else {name}
    return names


def _json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def assert_defaults(given: dict[str, Any], defaults: dict[str, Any], place: str) -> None:
    for key, value in given.items():
        if isinstance(value, dict):
            assert_defaults(value, defaults[key], f"{place}{key}.")
        else:
            assert value == _json(defaults[key]), f"{place}{key}"


@pytest.mark.parametrize(
    ("name", "kind", "tables"),
    [
        ("cortex/cortex.toml", CortexConfig, {"neurons"}),
        ("neuron/neuron.toml", NeuronConfig, {"default_models", "models"}),
    ],
)
def test_example_holds_every_key_at_its_default(
    name: str, kind: type[msgspec.Struct], tables: set[str]
) -> None:
    missing = leaf_keys(kind()) - keys_mentioned(ETC / name) - tables
    assert missing == set()
    given = tomllib.loads((ETC / name).read_text())
    given.pop("models_config", None)
    assert_defaults(given, msgspec.to_builtins(kind()), "")


def test_models_example_holds_every_key_at_its_default() -> None:
    path = ETC / "cortex/models.toml"
    assert field_names(ModelConfig) - keys_mentioned(path) == set()
    given = tomllib.loads(path.read_text())["models"][0]
    assert_defaults(given, msgspec.to_builtins(ModelConfig(id=given["id"])), "models[0].")


def test_commented_out_keys_are_right_too(tmp_path: Path) -> None:
    for name, kind in (("cortex/models.toml", ModelsConfig), ("cortex/cortex.toml", CortexConfig)):
        text = re.sub(r"^#(?=[\w\[])", "", (ETC / name).read_text(), flags=re.MULTILINE)
        assert msgspec.toml.decode(text.encode(), type=kind)
    node = re.sub(r"^#(?=[\w\[])", "", (ETC / "neuron/neuron.toml").read_text(), flags=re.MULTILINE)
    assert msgspec.toml.decode(node.encode(), type=NeuronConfig).models
