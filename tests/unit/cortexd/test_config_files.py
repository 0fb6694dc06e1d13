"""Where configuration and sockets are looked for."""

import os
from pathlib import Path

import pytest

from cortex_core.errors import ConfigError
from cortexd.config import CortexConfig, GatewayConfig
from cortexd.config_files import read_configuration, runtime_dir, state_dir


def test_models_file_lies_beside_the_one_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cortex.toml").write_text('models_config = "sub/models.toml"\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "models.toml").write_text('[[models]]\nid = "pypi:a"\n')
    read = read_configuration(tmp_path / "cortex.toml")
    assert [model.id for model in read.models.models] == ["pypi:a"]


def test_without_a_models_file_there_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "cortex.toml").write_text("")
    assert read_configuration(tmp_path / "cortex.toml").models.models == ()


def test_missing_models_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cortex.toml").write_text('models_config = "models.toml"\n')
    with pytest.raises(ConfigError, match=r"models\.toml: no such file"):
        read_configuration(tmp_path / "cortex.toml")


def test_environment_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cortex.toml").write_text("")
    monkeypatch.setenv("CORTEX_GATEWAY__WORKERS", "3")
    assert read_configuration(tmp_path / "cortex.toml").cortex.gateway.workers == 3


def test_runtime_folder_is_the_first_that_somebody_named() -> None:
    named = CortexConfig(gateway=GatewayConfig(runtime_dir="/named"))
    both = {"RUNTIME_DIRECTORY": "/run/cortex:/run/b", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert runtime_dir(named, both) == Path("/named")
    assert runtime_dir(CortexConfig(), both) == Path("/run/cortex")
    session = {"XDG_RUNTIME_DIR": "/run/user/1"}
    assert runtime_dir(CortexConfig(), session) == Path("/run/user/1/cortex")
    assert runtime_dir(CortexConfig(), {}) == Path(f"/tmp/cortex-{os.getuid()}")


def test_state_folder_is_the_first_that_somebody_named() -> None:
    named = CortexConfig(gateway=GatewayConfig(state_dir="/named"))
    systemd = {"STATE_DIRECTORY": "/var/lib/cortex", "XDG_STATE_HOME": "/s", "HOME": "/home/a"}
    assert state_dir(named, systemd) == Path("/named")
    assert state_dir(CortexConfig(), systemd) == Path("/var/lib/cortex")
    session = {"XDG_STATE_HOME": "/s", "HOME": "/home/a"}
    assert state_dir(CortexConfig(), session) == Path("/s/cortex/gateway")
    home = {"HOME": "/home/a"}
    assert state_dir(CortexConfig(), home) == Path("/home/a/.local/state/cortex/gateway")
