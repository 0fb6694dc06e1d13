"""aider: it writes the file that the model's answer has, without tools."""

import subprocess
from pathlib import Path

import pytest

from tests.clients.install import pip_install
from tests.clients.tasks import DONE, RIGHT, TASK, WRONG, assert_right, wrong_file
from tests.fakes.up_process import scripted_up

pytestmark = pytest.mark.timeout(900)  # it is installed first

RUN_TIMEOUT_S = 120
ANSWER = f"{DONE}\n\nnotes.txt\n```\n{RIGHT}\n```\n"
FLAGS = ["--no-git", "--yes-always", "--no-check-update", "--analytics-disable", "--no-pretty"]


def test_it_edits_a_file(tmp_path: Path) -> None:
    aider = pip_install(tmp_path / "v", "aider-chat") / "aider"
    file = wrong_file(tmp_path)
    with scripted_up(tmp_path / "up", {"contains": [TASK, WRONG], "answer": ANSWER}) as up:
        done = subprocess.run(
            [str(aider), "--model", f"openai/{up.model}", *FLAGS, "--message", TASK, file.name],
            cwd=file.parent,
            env={
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
                "OPENAI_API_BASE": f"{up.base_url}/v1",
                "OPENAI_API_KEY": "none",
                # Else LiteLLM fetches prices of models from the network when it is imported.
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert DONE in done.stdout
    assert_right(file)
