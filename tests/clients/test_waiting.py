"""Agents whose request has to wait: signs of life come first, and the answer after them."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cortex_core.ids import ModelId
from tests.clients.agents import CONTEXT_TOKENS, Agent, ClaudeCode, Codex, Fleet
from tests.clients.relay import relay_to
from tests.clients.tasks import TASK
from tests.fakes.fleet_process import FleetProcess, fleet_process
from tests.fakes.scripted_models import write_script
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # its client is installed first

RUN_TIMEOUT_S = 120
SAID = "There is nothing to do."
HOLD = "Take your time."
RULES = (
    # Longer than any test: it ends when its client goes.
    {"latest_contains": [HOLD], "answer": "One two three. " * 1000},
    {"answer": SAID},
)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FleetProcess, ModelId]]:
    """A fleet whose one model takes one request at a time."""
    root = tmp_path_factory.mktemp("fleet")
    model = write_script(root / "busy", *RULES, context_tokens=CONTEXT_TOKENS, tokens_per_second=20)
    models_toml = f'[[models]]\nid = "{model}"\nmax_in_flight = 1\n'
    with fleet_process(root, model, models_toml=models_toml) as fleet:
        yield fleet, model
        fleet.stop()


@pytest.mark.parametrize(
    ("agent", "alive", "begins"),
    [
        (ClaudeCode(), b"event: ping\n", b"event: message_start\n"),
        (Codex(), b": loading stage=queued", b"event: response.output_item.added\n"),
    ],
    ids=["claude", "codex"],
)
def test_it_takes_signs_of_life_before_the_answer(
    agent: Agent,
    alive: bytes,
    begins: bytes,
    busy: tuple[FleetProcess, ModelId],
    installed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    fleet, model = busy
    command = installed(agent.package) / agent.command
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": HOLD}]}
    with relay_to(fleet.base_url) as relay:
        at = Fleet(relay.base_url, model)
        agent.configure(tmp_path, at)
        with httpx.stream(
            "POST", f"{fleet.base_url}/v1/chat/completions", json=asked, timeout=RUN_TIMEOUT_S
        ) as holding:
            lines = holding.iter_lines()  # it goes with them
            assert any(line.startswith("data: ") for line in lines)
            run = subprocess.Popen(
                [str(command), *agent.arguments(tmp_path, at)],
                cwd=tmp_path,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(tmp_path),
                    **agent.environment(at),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                wait_until(
                    lambda: run.poll() is not None or alive in relay.heard, timeout_s=RUN_TIMEOUT_S
                )
                assert run.poll() is None, run.communicate()
                assert begins not in relay.heard
                holding.close()  # gives its place to the one that waits
                said, logged = run.communicate(timeout=RUN_TIMEOUT_S)
            finally:
                run.kill()
                run.wait()
    assert run.returncode == 0, said + logged
    assert said.strip().endswith(SAID)
    assert relay.heard.index(alive) < relay.heard.index(begins)
    task = json.dumps(TASK).encode().strip(b'"')
    assert any(task in one for one in relay.asked)
