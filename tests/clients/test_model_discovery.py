"""Claude Code finds the models of a gateway, and shows them in its own list."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.agents import CONTEXT_TOKENS, ClaudeCode, Fleet
from tests.clients.terminal import terminal
from tests.fakes.fleet_process import fleet_process
from tests.fakes.scripted_models import write_script
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # it is installed first

FOUND_TIMEOUT_S = 60
SAID = "Hello from the script."
AGENT = ClaudeCode()
# Of what it leaves out by CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC, the list of models is one.
QUIET = {"DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1", "DISABLE_AUTOUPDATER": "1"}


def test_local_models_are_found_shown_and_chosen(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    command = installed(AGENT.package) / AGENT.command
    model = write_script(tmp_path / "script", {"answer": SAID}, context_tokens=CONTEXT_TOKENS)
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    settings = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(work): trusted}}
    (home / ".claude.json").write_text(json.dumps(settings), encoding="utf-8")
    models_toml = f'[[models]]\nid = "{model}"\n\n[aliases]\n"house" = "{model}"\n'
    with fleet_process(tmp_path, model, models_toml=models_toml) as fleet:
        environment = AGENT.environment(Fleet(fleet.base_url, model)) | QUIET
        del environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"]
        environment |= {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
        }
        # Flat text, one line for each thing, which a test can read as well.
        ask = [str(command), "--ax-screen-reader"]
        with terminal(ask, work, environment) as screen:
            screen.see("/effort")
            wait_until(lambda: found(home), timeout_s=FOUND_TIMEOUT_S)
            wanted = {"anthropic/house": "house", f"anthropic/{model}": model}
            assert wanted.items() <= found(home).items()
            screen.type("/model", until="Set the AI model")
            screen.type("\r", until="Enter selection")
            number = screen.see(r"(\d+)\. house — From gateway")[1]
            screen.type(f"{number}\r", until="(?i)set model to .*house")
            screen.type("Hello?", until=r"Hello\?")
            screen.type("\r", until=f"claude: {SAID}")
        assert fleet.metric("cortex_completion_tokens_total", model=model) > len(SAID)
        fleet.stop()


def found(home: Path) -> dict[str, Any]:
    """Return what it keeps of the list: the names that it shows, by id."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        kept = json.loads((home / ".claude" / "cache" / "gateway-models.json").read_text())
        return {model["id"]: model["display_name"] for model in kept["models"]}
    return {}
