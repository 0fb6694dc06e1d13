"""Coding agents: each reads and edits a file with its own tools, as the model says."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.agents import AGENTS, CONTEXT_TOKENS, Agent, ClaudeCode, Codex, Fleet
from tests.clients.tasks import DONE, RIGHT, TASK, WRONG, assert_right, wrong_file
from tests.fakes.scripted_models import spoilt
from tests.fakes.up_process import scripted_up

pytestmark = pytest.mark.timeout(900)  # its client is installed first


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.command)
def test_it_reads_and_edits_a_file(
    agent: Agent, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    assert_done(
        agent, installed(agent.package), tmp_path, f"I read it.\n{agent.read(wrong_file(tmp_path))}"
    )


@pytest.mark.parametrize("agent", [ClaudeCode(), Codex()], ids=lambda agent: agent.command)
def test_a_call_that_the_model_spoils_is_what_it_answers(
    agent: Agent, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    written = spoilt(agent.read(wrong_file(tmp_path)))
    done = run(agent, installed(agent.package), tmp_path, written)
    assert done.returncode == 0, done.stdout + done.stderr
    assert written in done.stdout


def assert_done(agent: Agent, commands: Path, tmp_path: Path, first_answer: str) -> None:
    """Run it in a folder that has the wrong file, and look at what came of it."""
    done = run(agent, commands, tmp_path, first_answer)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith(DONE)
    assert_right(tmp_path / "work" / "notes.txt")


def run(
    agent: Agent, commands: Path, tmp_path: Path, first_answer: str
) -> subprocess.CompletedProcess[str]:
    home = tmp_path / "home"
    home.mkdir()
    file = tmp_path / "work" / "notes.txt"
    script = rules(agent, file, first_answer)
    with scripted_up(tmp_path / "up", *script, context_tokens=CONTEXT_TOKENS) as up:
        return agent.run(commands, home, Fleet(up.base_url, up.model), file.parent)


def rules(agent: Agent, file: Path, first_answer: str) -> list[dict[str, Any]]:
    """Return the script: it reads, edits once it has seen what is wrong, and says so."""
    return [
        *agent.asides,
        {"latest_contains": [RIGHT], "answer": DONE},
        {"latest_contains": [WRONG], "answer": agent.edit(file)},
        {"latest_contains": [TASK], "answer": first_answer},
        {"turn": 2, "answer": agent.read(file)},  # the first call was spoilt
        {"answer": DONE},  # where the tool that edits does not show what came of it
    ]
