"""The example files: every key of the types is in them, at its default."""

import re
import tomllib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from cortexd.config import CortexConfig, ModelConfig, ModelsConfig
from neurond.config import NeuronConfig
from tests.packaging.conftest import REPOSITORY

ETC = REPOSITORY / "etc"
FILES = [
    ("cortex/cortex.toml", CortexConfig),
    ("cortex/models.toml", ModelsConfig),
    ("neuron/neuron.toml", NeuronConfig),
]

each_file = pytest.mark.parametrize(("name", "kind"), FILES)


def uncommented(path: Path) -> dict[str, Any]:
    """The file with the keys and tables in it that are commented out."""
    return tomllib.loads(re.sub(r"^#(?=[\w\[])", "", path.read_text(), flags=re.MULTILINE))


def table_of(hint: Any) -> type[msgspec.Struct] | None:
    """The type of a table, or of the tables of an array; None for a plain value."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if get_origin(hint) in (Annotated, UnionType, Union, list, tuple):
        return next((kind for kind in map(table_of, get_args(hint)) if kind is not None), None)
    return None


def assert_same_keys(given: dict[str, Any], kind: type[msgspec.Struct], place: str) -> None:
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    assert set(given) == names, place
    for name, hint in get_type_hints(kind, include_extras=True).items():
        table = table_of(hint)
        if table is not None:
            first = given[name][0] if isinstance(given[name], list) else given[name]
            assert_same_keys(first, table, f"{place}.{name}")


def assert_defaults(given: dict[str, Any], defaults: msgspec.Struct, place: str) -> None:
    for key, value in given.items():
        default = getattr(defaults, key)
        if isinstance(value, dict):
            assert_defaults(value, default, f"{place}{key}.")
        else:
            expected = msgspec.to_builtins(default)
            assert value == (list(expected) if isinstance(expected, tuple) else expected), (
                f"{place}{key}"
            )


@each_file
def test_example_holds_every_key_of_every_table(name: str, kind: type[msgspec.Struct]) -> None:
    assert_same_keys(uncommented(ETC / name), kind, name)


def test_a_key_that_another_table_has_too_is_missed() -> None:
    given = uncommented(ETC / "neuron/neuron.toml")
    del given["default_models"][0]["devices"]
    with pytest.raises(AssertionError, match=r"neuron\.toml\.default_models"):
        assert_same_keys(given, NeuronConfig, "neuron.toml")


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kind in FILES if kind is not ModelsConfig]
)
def test_keys_in_force_are_at_their_default(name: str, kind: type[msgspec.Struct]) -> None:
    given = tomllib.loads((ETC / name).read_text())
    given.pop("models_config", None)  # has none; the file says so
    assert_defaults(given, kind(), "")


def test_keys_of_a_model_are_at_their_default() -> None:
    given = tomllib.loads((ETC / "cortex/models.toml").read_text())["models"][0]
    assert_defaults(given, ModelConfig(id=given["id"]), "models[0].")


@each_file
def test_commented_out_keys_are_right_too(name: str, kind: type[msgspec.Struct]) -> None:
    assert msgspec.convert(uncommented(ETC / name), kind)
