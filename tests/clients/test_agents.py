"""Coding agents: each reads and edits a file with its own tools, as the model says."""

from pathlib import Path
from typing import Any

import pytest

from tests.clients.agents import AGENTS, CONTEXT_TOKENS, Agent, Fleet
from tests.clients.install import npm_install
from tests.clients.tasks import DONE, RIGHT, TASK, WRONG, assert_right, wrong_file
from tests.fakes.up_process import scripted_up

pytestmark = pytest.mark.timeout(900)  # its client is installed first


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.command)
def test_it_reads_and_edits_a_file(agent: Agent, tmp_path: Path) -> None:
    installed = npm_install(tmp_path / "npm", agent.package)
    home = tmp_path / "home"
    home.mkdir()
    file = wrong_file(tmp_path)
    with scripted_up(tmp_path / "up", *rules(agent, file), context_tokens=CONTEXT_TOKENS) as up:
        done = agent.run(installed, home, Fleet(up.base_url, up.model), file.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith(DONE)
    assert_right(file)


def rules(agent: Agent, file: Path) -> list[dict[str, Any]]:
    """Return the script: it reads, edits once it has seen what is wrong, and says so."""
    reads = f"I read it.\n{agent.read(file)}"
    return [
        *agent.asides,
        {"latest_contains": [RIGHT], "answer": DONE},
        {"latest_contains": [WRONG], "answer": agent.edit(file)},
        {"latest_contains": [TASK], "answer": reads},
        {"answer": DONE},  # where the tool that edits does not show what came of it
    ]
