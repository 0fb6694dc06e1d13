"""What neuron.toml may say, and how errors in it read."""

from pathlib import Path

import pytest

from cortex_core.errors import ConfigError, InvalidRequest
from cortex_core.ids import ModelId
from cortex_core.neuron_api import LoadRequest, ModelProfile
from neurond.config import NeuronConfig, read_neuron_config
from neurond.profiles import Profiles


def written(folder: Path, text: str) -> Path:
    path = folder / "neuron.toml"
    path.write_text(text)
    return path


def test_every_key_has_a_default(tmp_path: Path) -> None:
    config = read_neuron_config(written(tmp_path, ""))
    assert config == NeuronConfig()
    assert config.port == 13131
    assert config.state_dir == "/var/lib/neuron"


def test_ids_without_a_scheme_take_the_default(tmp_path: Path) -> None:
    text = 'default_scheme = "hf"\n[[default_models]]\nmodel_id = "org/m"\ndevices = ["cpu"]\n'
    config = read_neuron_config(written(tmp_path, text))
    assert config.default_loads() == [LoadRequest(ModelId("hf:org/m"), devices=["cpu"])]
    with pytest.raises(InvalidRequest):
        config.model_id("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot.*port"),
        ('port = "x"', "port"),
        ("port = 70000", "port"),
        ("port = -1", "port"),
        ('log_level = "loud"', "log_level.*info"),
        ("[limits]\nmax_requests = 0", r"limits\.max_requests"),
        ("[limits]\nmax_request = 1", r"limits\.max_request\b.*max_requests"),
        ("drain_timeout_s = -1", "drain_timeout_s"),
        (
            '[[models]]\nid = "m"\n[[models]]\nid = "pypi:m"\n',
            r"models\[1\]\.id: pypi:m is there twice",
        ),
        ('[[default_models]]\nmodel = "x"', r"default_models\[0\]\.model\b"),
        ('[[default_models]]\nmodel_id = ""', r"default_models\[0\]\.model_id"),
        ('[[models]]\nid = "m"\ncontext_tokens = "big"', r"models\[0\]\.context_tokens"),
        ('[[models]]\nid = "m"\nchat_template = "gone.jinja"', r"models\[0\]\.chat_template"),
        ("port = ", "neuron.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_neuron_config(written(tmp_path, text))
    assert "neuron.toml" in caught.value.message


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_PORT", "4000")
    monkeypatch.setenv("NEURON_LIMITS__MAX_BODY_MB", "5")
    config = read_neuron_config(written(tmp_path, "port = 1"))
    assert (config.port, config.limits.max_body_mb) == (4000, 5)


def test_a_named_file_must_exist_and_the_usual_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_neuron_config(tmp_path / "gone.toml")


def test_sockets_lie_where_systemd_says_or_in_the_state() -> None:
    config = NeuronConfig(state_dir="/s", port=13132)
    assert config.runtime_folder({"RUNTIME_DIRECTORY": "/run/neuron"}) == Path("/run/neuron")
    assert config.runtime_folder({}) == Path("/s/run/13132")
    assert NeuronConfig(runtime_dir="/r").runtime_folder({"RUNTIME_DIRECTORY": "/x"}) == Path("/r")


def test_a_template_may_stand_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "gemma.jinja").write_text("{{ messages }}")
    text = '[[models]]\nid = "m"\nchat_template = "gemma.jinja"\n'
    text += '[[models]]\nid = "n"\nchat_template = "{{ inline }}"\n'
    profiles = read_neuron_config(written(tmp_path, text)).profiles()
    assert profiles[ModelId("pypi:m")].chat_template == "{{ messages }}"
    assert profiles[ModelId("pypi:n")].chat_template == "{{ inline }}"


def test_what_a_load_says_goes_before_the_file_and_gaps_are_filled() -> None:
    model = ModelId("pypi:m")
    profiles = Profiles({model: ModelProfile(dtype="float32", context_tokens=100)})
    assert profiles.of(model).context_tokens == 100
    asked = LoadRequest(model, profile=ModelProfile(context_tokens=50, chat_template="t"))
    completed = profiles.for_load(asked).profile
    assert completed == ModelProfile(dtype="float32", context_tokens=50, chat_template="t")
    assert profiles.of(model) == completed
    assert profiles.for_load(LoadRequest(model)).profile == completed
    other = LoadRequest(model, profile=ModelProfile(max_sequences=2))
    assert profiles.for_load(other).profile == ModelProfile(
        dtype="float32", context_tokens=100, max_sequences=2
    )
    assert profiles.of(ModelId("pypi:other")) == ModelProfile()
    profiles.forget(model)
    assert profiles.of(model) == ModelProfile(dtype="float32", context_tokens=100)
