"""What single keys of the two files cannot say."""

from pathlib import Path

import pytest

from cortex_core.errors import ConfigError
from cortex_core.ids import ModelId, NodeName
from cortexd.config import (
    CortexConfig,
    ModelConfig,
    ModelsConfig,
    NeuronConfig,
    check_cortex,
    check_models,
)
from cortexd.config_files import read_configuration


def models(*entries: ModelConfig) -> ModelsConfig:
    return check_models(ModelsConfig(models=entries), path=Path("/x/models.toml"), neurons={"n"})


@pytest.mark.parametrize(
    ("second", "key"), [(("n", "http://b:1"), "name"), (("m", "http://a:1/"), "endpoint")]
)
def test_two_neurons_share_nothing(second: tuple[str, str], key: str) -> None:
    neurons = (NeuronConfig("n", "http://a:1"), NeuronConfig(*second))
    with pytest.raises(ConfigError, match=rf"c\.toml: neurons\[1\]\.{key}: .* is there twice"):
        check_cortex(CortexConfig(neurons=neurons), file="c.toml")


@pytest.mark.parametrize("endpoint", ["http://x:99999", "http://x:0", "http://[::1", "http://:80"])
def test_an_endpoint_that_can_never_be_reached_is_refused(endpoint: str) -> None:
    neurons = (NeuronConfig("m", "http://a:1"), NeuronConfig("n", endpoint))
    with pytest.raises(ConfigError, match=r"neurons\[1\]\.endpoint: .* expected 'http://host:port"):
        check_cortex(CortexConfig(neurons=neurons), file="c.toml")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (ModelConfig(id="a:b", pinned_on=(NodeName("m"),)), r"pinned_on: no neuron is named 'm'"),
        (ModelConfig(id="a:b", min_replicas=2), r"min_replicas: 2 is more than max_replicas, 1"),
        (ModelConfig(id="a:b", chat_template="gone.jinja"), r"chat_template: cannot read .*gone"),
    ],
)
def test_entries_are_checked_against_each_other(entry: ModelConfig, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        models(entry)


def test_a_model_stands_once() -> None:
    with pytest.raises(ConfigError, match=r"models\[1\]\.id: 'a:b' is there twice"):
        models(ModelConfig(id="a:b"), ModelConfig(id="a:b"))


def test_pinned_models_have_a_class_of_their_own() -> None:
    pinned = ModelConfig(id="a:b", pinned_on=(NodeName("n"),))
    lowered = ModelConfig(id="a:b", pinned_on=(NodeName("n"),), residency_priority=5)
    assert [m.residency for m in (ModelConfig(id="a:b"), pinned, lowered)] == [100, 1000, 5]


def test_both_files_are_read_and_templates_with_them(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    (tmp_path / "models.toml").write_text(
        '[[models]]\nid = "file:a"\nchat_template = "t.jinja"\nlimit.context = 2048\n'
        'cost.input = 0.5\n[aliases]\nsmall = "file:a"\n[tiers]\nopus = "file:a"\n'
    )
    (tmp_path / "cortex.toml").write_text(
        'models_config = "models.toml"\n[[neurons]]\nname = "n"\nendpoint = "http://n:13131"\n'
    )

    configuration = read_configuration(tmp_path / "cortex.toml")

    (model,) = configuration.models.models
    assert model.profile().chat_template == "{{ messages }}"
    assert (model.limit.context, model.cost) == (2048, {"input": 0.5})
    assert configuration.models.aliases == {"small": ModelId("file:a")}
    assert configuration.models.tiers.targets() == {"opus": ModelId("file:a")}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[[neurons]]\nname = "n"\nendpoint = "n:13131"\n', r"neurons\[0\]\.endpoint"),
        ("[admission]\nmax_in_flight = 0\n", r"admission\.max_in_flight"),
        ('[eviction]\nstrategy = "mru"\n', r"eviction\.strategy"),
        ("[fleet]\npoll_intervall_s = 1\n", r"poll_interval_s"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "cortex.toml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_configuration(tmp_path / "cortex.toml")


def test_a_template_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_bytes(b"\xff\xfe{")
    entry = ModelConfig(id="a:b", chat_template="t.jinja")
    path = tmp_path / "models.toml"
    with pytest.raises(ConfigError, match=r"chat_template: cannot read .* can't decode byte 0xff"):
        check_models(ModelsConfig(models=(entry,)), path=path, neurons=set())
