"""`cortex up` on a real model: it answers, and however it ends it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cortexd.up.folders import folders_of
from tests.fakes.model_cache import SMOLLM2, cached_model, lend_models
from tests.fakes.up_process import READY_TIMEOUT_S, UpProcess
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.model

ANSWER_TIMEOUT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    cached_model(SMOLLM2)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder that has the model already."""
    folder = tmp_path / "s"
    (folder / "neuron").mkdir(parents=True)
    lend_models(folder / "neuron")
    return folder


@pytest.fixture
def started() -> Iterator[list[UpProcess]]:
    made: list[UpProcess] = []
    yield made
    for up in made:
        up.kill()


def test_once_answers_and_leaves_nothing(state: Path, started: list[UpProcess]) -> None:
    up = UpProcess(state, "--once", "--ask", "What is the capital of France?")
    started.append(up)
    assert up.wait_end() == 0, up.says()
    (answer,) = up.stdout.read_text().splitlines()
    assert "Paris" in answer
    assert up.sockets() == []
    assert not folders_of(state).run.exists()


def test_kill_9_leaves_nothing(state: Path, started: list[UpProcess]) -> None:
    up = UpProcess(state)
    started.append(up)
    up.wait_up()
    up.process.kill()
    assert up.wait_end() == -signal.SIGKILL
    assert up.sockets() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_impatient_user_need_not_wait_for_the_start(
    state: Path, started: list[UpProcess], number: signal.Signals
) -> None:
    up = UpProcess(state)
    started.append(up)
    wait_until(lambda: up.daemons("neurond.cli serve"), timeout_s=READY_TIMEOUT_S)
    up.process.send_signal(number)
    up.process.send_signal(number)
    assert up.wait_end() == 0, up.says()
    assert up.sockets() == []


def test_printed_lines_can_be_copied(state: Path, started: list[UpProcess]) -> None:
    up = UpProcess(state)
    started.append(up)
    up.wait_up()
    lines = [line.strip() for line in up.says().splitlines()]
    commands = [line for line in lines if line.startswith(("curl ", "python "))]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=ANSWER_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), command
    assert any(f"ANTHROPIC_BASE_URL=http://127.0.0.1:{up.gateway_port} " in line for line in lines)
    rest = stop_while_streaming(up)
    assert "stage=" not in rest, "its node was gone before the gateway"
    assert '"error"' in rest


def stop_while_streaming(up: UpProcess) -> str:
    """Interrupt it while an answer runs that takes too long; what the client still got."""
    endless = {"max_tokens": 8000, "ignore_eos": True, "stream": True}
    body = {"model": SMOLLM2, "messages": [{"role": "user", "content": "Count."}], **endless}
    url = f"http://127.0.0.1:{up.gateway_port}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=ANSWER_TIMEOUT_S) as answer:
        lines = answer.iter_lines()
        assert any('"content"' in line for line in lines)
        up.process.send_signal(signal.SIGINT)
        rest = "\n".join(lines)
    assert up.wait_end() == 0, up.says()
    return rest


@pytest.mark.parametrize("module", ["neurond.cli serve", "cortexd.cli serve"])
def test_daemon_that_dies_ends_it_with_its_last_words(
    state: Path, started: list[UpProcess], module: str
) -> None:
    up = UpProcess(state)
    started.append(up)
    wait_until(lambda: up.daemons(module), timeout_s=READY_TIMEOUT_S)
    (daemon,) = up.daemons(module)
    daemon.kill()
    assert up.wait_end() == 1
    assert "killed by signal 9" in up.says()
    assert up.sockets() == []


def test_second_one_in_the_same_folder_is_refused(state: Path, started: list[UpProcess]) -> None:
    first = UpProcess(state)
    started.append(first)
    wait_until((state / "cortex.toml").exists)
    second = UpProcess(state)
    started.append(second)
    assert second.wait_end() == 2
    assert "another 'cortex up' runs in it" in second.says()
    first.process.send_signal(signal.SIGTERM)
    first.wait_end()
    assert first.sockets() == []


def test_port_in_use_is_told_at_once(state: Path, started: list[UpProcess]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = UpProcess(state, "--gateway-port", str(port))
        started.append(up)
        assert up.wait_end() == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in up.says()


def test_unknown_model_is_told(state: Path, started: list[UpProcess]) -> None:
    up = UpProcess(state, "--once", "--model", "file:/nowhere/model.gguf")
    started.append(up)
    assert up.wait_end() == 1
    assert "/nowhere/model.gguf" in up.says()
    assert up.sockets() == []
