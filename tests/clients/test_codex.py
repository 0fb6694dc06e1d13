"""codex exec: it reads and edits a file by its shell tool, as the model says."""

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
RULES: list[dict[str, Any]] = [
    {
        "turn": 1,
        "contains": [TASK],
        "answer": f"I read it.\n{call('exec_command', cmd='cat notes.txt')}",
    },
    {
        "turn": 2,
        "latest_contains": ["Two and two are five."],
        "answer": call("exec_command", cmd="sed -i s/five/four/ notes.txt && cat notes.txt"),
    },
    {"turn": 3, "latest_contains": ["Two and two are four."], "answer": DONE},
]


def test_it_reads_and_edits_a_file(codex: NodeClient, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = work / "notes.txt"
    file.write_text(WRONG)
    with scripted_up(tmp_path / "up", *RULES, context_tokens=CONTEXT) as up:
        configure(codex.home, up)
        # Its own sandbox needs namespaces that a container may not give; the folder is a test's.
        asked = ["exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", TASK]
        done = codex.run(*asked, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == DONE
    assert file.read_text() == RIGHT


def test_it_goes_on_after_a_call_that_the_model_spoils(codex: NodeClient, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = work / "notes.txt"
    file.write_text(WRONG)
    spoils = RULES[0] | {"answer": spoilt(RULES[0]["answer"])}
    # Nothing was read; the client has only told the model that its call cannot be.
    edits = {"turn": 2, "answer": RULES[1]["answer"]}
    with scripted_up(tmp_path / "up", spoils, edits, RULES[2], context_tokens=CONTEXT) as up:
        configure(codex.home, up)
        asked = ["exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", TASK]
        done = codex.run(*asked, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == DONE
    assert file.read_text() == RIGHT


def configure(home: Path, up: ScriptedUp) -> None:
    folder = home / ".codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(
        f'model = "{up.model}"\nmodel_provider = "cortex"\n'
        f'[model_providers.cortex]\nname = "cortex"\nbase_url = "{up.base_url}/v1"\n'
        'wire_api = "responses"\n'
    )
