"""Claude Code in print mode: it reads and edits a file with its own tools, as the model says."""

from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import NodeClient
from tests.fakes.scripted_models import call, spoilt
from tests.fakes.up_process import ScriptedUp, scripted_up

pytestmark = pytest.mark.timeout(900)  # its client is installed first

TASK = "Correct the sum in notes.txt."
WRONG, RIGHT = "Two and two are five.\n", "Two and two are four.\n"
DONE = "The sum in notes.txt is corrected."
CONTEXT = 200_000
"""Its whole prompt in a tokenizer of bytes."""


def rules(file: Path) -> list[dict[str, Any]]:
    edit = call("Edit", file_path=str(file), old_string="five", new_string="four")
    return [
        {
            "turn": 1,
            "contains": [TASK],
            "answer": f"I read it.\n{call('Read', file_path=str(file))}",
        },
        {"turn": 2, "latest_contains": ["Two and two are five."], "answer": edit},
        {"turn": 3, "latest_contains": ["has been updated"], "answer": DONE},
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "notes.txt"
    path.parent.mkdir()
    path.write_text(WRONG)
    return path


def test_it_reads_and_edits_a_file(claude_code: NodeClient, file: Path, tmp_path: Path) -> None:
    with scripted_up(tmp_path / "up", *rules(file), context_tokens=CONTEXT) as up:
        done = claude_code.run(
            *("-p", TASK, "--model", up.model, "--allowedTools", "Read,Edit"),
            cwd=file.parent,
            environment=environment(up),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == DONE
    assert file.read_text() == RIGHT


def test_it_goes_on_after_a_call_that_the_model_spoils(
    claude_code: NodeClient, file: Path, tmp_path: Path
) -> None:
    first, second, third = rules(file)
    spoils = first | {"answer": spoilt(first["answer"])}
    again = {"turn": 2, "answer": call("Read", file_path=str(file))}
    later = (second | {"turn": 3}, third | {"turn": 4})
    with scripted_up(tmp_path / "up", spoils, again, *later, context_tokens=CONTEXT) as up:
        done = claude_code.run(
            *("-p", TASK, "--model", up.model, "--allowedTools", "Read,Edit"),
            cwd=file.parent,
            environment=environment(up),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == DONE
    assert file.read_text() == RIGHT


def environment(up: ScriptedUp) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": up.base_url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
