"""The daemon's life: start, activation, drain, ports, signals, and what it leaves behind."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from cortex_core.canonical import Failed, Finished
from cortex_core.errors import InvalidRequest
from cortex_core.ipc.admin import AdminClient
from cortex_core.model_folder import MANIFEST
from neurond.sources.store import ModelStore
from tests.fakes.neuron_process import MODEL, NeuronProcess, add_model, neuron_process
from tests.fakes.process_family import alive
from tests.fakes.waiting import WAIT_S, wait_until
from tests.fakes.wire import events_of


def children(node: NeuronProcess) -> list[psutil.Process]:
    return psutil.Process(node.process.pid).children(recursive=True)


def slow_load(node: NeuronProcess, results: list[int]) -> threading.Thread:
    """Load the model that waits for a file, in the background."""

    def load() -> None:
        with httpx.Client(base_url=node.base_url, timeout=2 * WAIT_S) as client:
            results.append(client.post("/models/load", json={"model_id": "slow"}).status_code)

    thread = threading.Thread(target=load)
    thread.start()
    return thread


def test_default_models_load_in_order_after_the_node_is_ready(tmp_path: Path) -> None:
    toml = "".join(
        f'[[default_models]]\nmodel_id = "pypi:{name}"\n' for name in ("bad", "counting")
    )
    add_model(tmp_path / "state", "bad")
    with neuron_process(tmp_path, toml=toml) as node:

        def done() -> bool:
            return node.client.get("/health").json()["activation"]["state"] == "done"

        wait_until(done)
        activation = node.client.get("/health").json()["activation"]
        assert activation["completed"] == ["pypi:counting"]
        assert activation["failed"][0]["model_id"] == "pypi:bad"
        assert "truncated" in activation["failed"][0]["error"]
        node.wait_notified("STATUS=ready: pypi:counting")


def test_models_of_another_version_are_prepared_again_while_the_node_serves(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    manifest = ModelStore(state_dir).folder(add_model(state_dir, "old")) / MANIFEST
    manifest.write_bytes(
        msgspec.json.encode(msgspec.json.decode(manifest.read_bytes()) | {"format": 2})
    )
    with neuron_process(tmp_path) as node:
        node.load()
        # Its weights are one byte, so that is how it ends.
        told = "model not prepared again model=pypi:old"
        wait_until(lambda: told in node.log.read_text())
        assert node.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_streams_finish_and_leaves_nothing(
    tmp_path: Path, signum: signal.Signals
) -> None:
    with neuron_process(tmp_path, toml="drain_timeout_s = 600.0\n") as node:
        node.load()
        actors = children(node)
        body = {
            "request_id": "r",
            "model": MODEL,
            "prompt": {"type": "text", "text": "q"},
            "sampling": {"max_tokens": 1500, "ignore_eos": True},
            "n": 8,
        }
        with (
            httpx.Client(base_url=node.base_url, timeout=WAIT_S) as client,
            client.stream("POST", "/generate", json=body) as stream,
        ):
            node.process.send_signal(signum)
            content = stream.read()
        finished = [e for e in events_of(content) if isinstance(e, Finished)]
        assert [event.reason for event in finished] == ["length"] * 8
        assert node.process.wait(WAIT_S) == 0
        wait_until(lambda: node.told("STOPPING=1"))
        assert list(node.runtime_dir.iterdir()) == []
        wait_until(lambda: not any(map(alive, actors)))


def test_a_drain_is_bounded_and_tells_those_it_cuts_off(tmp_path: Path) -> None:
    add_model(tmp_path / "state", "slow")
    with neuron_process(tmp_path, toml="drain_timeout_s = 0.3\n") as node:
        results: list[int] = []
        loading = slow_load(node, results)
        wait_until(lambda: b"loading" in node.client.get("/models").content)
        assert node.stop() == 0
        loading.join(WAIT_S)
        assert results == [503]


def test_while_draining_health_is_503_and_new_work_is_refused(tmp_path: Path) -> None:
    with neuron_process(tmp_path) as node:
        node.load()
        with AdminClient(node.runtime_dir / "admin.sock") as admin:
            for verb in ("status", "discover", "models"):
                with pytest.raises(InvalidRequest, match="all: unknown key"):
                    admin.call(verb, all=True)
            assert admin.call("drain", timeout_s=10)["draining"] is True
        health = node.client.get("/health")
        assert health.status_code == 503
        assert health.json()["draining"] is True
        refused = node.client.post(
            "/v1/completions", json={"model": MODEL, "prompt": "q", "max_tokens": 2}
        )
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert node.stop() == 0


def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    with neuron_process(tmp_path, toml="drain_timeout_s = 600.0\n") as node:
        node.load()
        body = {"request_id": "r", "model": MODEL, "prompt": {"type": "text", "text": "q"}}
        sampling = {"max_tokens": 2000, "ignore_eos": True}
        with httpx.Client(base_url=node.base_url, timeout=WAIT_S) as client:
            asked = body | {"sampling": sampling, "n": 16}
            with client.stream("POST", "/generate", json=asked) as stream:
                node.process.send_signal(signal.SIGINT)
                wait_until(lambda: node.told("STOPPING=1"))
                node.process.send_signal(signal.SIGINT)
                last = events_of(stream.read())[-1]
        assert node.process.wait(WAIT_S) == 0
        if isinstance(last, Failed):
            assert last.error.code == "shutting_down"


def test_a_killed_node_takes_its_actors_along_and_starts_again(tmp_path: Path) -> None:
    node = NeuronProcess(tmp_path).wait_ready()
    try:
        actors = children(node)
        assert actors
        node.process.kill()
        node.process.wait()
        wait_until(lambda: not any(map(alive, actors)))
    finally:
        node.close()
    (tmp_path / "notify").unlink()
    with neuron_process(tmp_path) as again:
        again.load()
        assert again.stop() == 0
        assert list(again.runtime_dir.iterdir()) == []


def test_a_port_in_use_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = NeuronProcess(tmp_path, port=port)
        try:
            assert node.process.wait(WAIT_S) != 0
            log = node.log.read_text()
            assert f"cannot listen on 127.0.0.1:{port}" in log
            assert "another process uses the port" in log
        finally:
            node.close()


def test_two_nodes_run_side_by_side(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"  # unix paths are short
    first.mkdir()
    second.mkdir()
    with neuron_process(first) as one, neuron_process(second) as two:
        assert one.port != two.port
        one.load()
        assert two.client.get("/models").json()["models"][0]["status"] == "unloaded"


def test_a_model_loads_once_for_everyone_and_its_progress_shows(tmp_path: Path) -> None:
    add_model(tmp_path / "state", "slow")
    with neuron_process(tmp_path) as node:
        node.load()
        results: list[int] = []
        loading = [slow_load(node, results) for _ in range(3)]

        def progress() -> float:
            models = {m["id"]: m for m in node.client.get("/models").json()["models"]}
            shown: float = models["pypi:slow"].get("loading", {}).get("progress", 0.0)
            return shown

        wait_until(lambda: progress() == 0.25)
        answer = node.client.post(
            "/v1/completions", json={"model": MODEL, "prompt": "0", "max_tokens": 2}
        )
        assert answer.json()["choices"][0]["text"] == "12"
        (tmp_path / "state" / "models" / "pypi" / "slow" / "go").touch()
        for thread in loading:
            thread.join(WAIT_S)
        assert results == [200, 200, 200]


def test_a_load_goes_on_when_the_client_that_asked_for_it_leaves(tmp_path: Path) -> None:
    add_model(tmp_path / "state", "slow")
    with neuron_process(tmp_path) as node:

        def status() -> str:
            models = {m["id"]: m for m in node.client.get("/models").json()["models"]}
            known: str = models["pypi:slow"]["status"]
            return known

        with socket.create_connection(("127.0.0.1", node.port)) as leaving:
            body = b'{"model_id": "slow"}'
            head = f"POST /models/load HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            leaving.sendall(head.encode() + body)
            wait_until(lambda: status() == "loading")
        # The server notices the closed connection before it answers this.
        assert node.client.get("/version").status_code == 200
        (tmp_path / "state" / "models" / "pypi" / "slow" / "go").touch()
        wait_until(lambda: status() == "ready")
        asked = {"model": "pypi:slow", "prompt": "0", "max_tokens": 2}
        assert node.client.post("/v1/completions", json=asked).json()["choices"][0]["text"] == "12"


def neuron(*arguments: str, config: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "neurond.cli", *arguments, "--config", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=2 * WAIT_S, check=False)


def test_the_command_line_talks_to_the_node(tmp_path: Path) -> None:
    with neuron_process(tmp_path) as node:
        loaded = neuron("load", "counting", config=node.config)
        assert loaded.returncode == 0, loaded.stderr
        assert "pypi:counting loaded on cpu" in loaded.stdout
        status = neuron("status", config=node.config)
        assert "pypi:counting" in status.stdout
        assert "ready" in status.stdout
        as_json = json.loads(neuron("status", "--json", config=node.config).stdout)
        assert as_json["models"][0]["status"] == "ready"
        unloaded = neuron("unload", "counting", "--json", config=node.config)
        assert json.loads(unloaded.stdout)["model_id"] == MODEL
        again = neuron("unload", "counting", config=node.config)
        assert again.returncode == 1
        assert "not loaded" in again.stderr
        assert node.stop() == 0
        alone = neuron("status", config=node.config)
        assert alone.returncode == 3
        assert "is the daemon running?" in alone.stderr
