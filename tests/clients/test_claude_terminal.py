"""Claude Code as people use it, in a terminal: the list of models, its count of tokens, Escape."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cortex_core.ids import ModelId
from tests.clients.agents import CONTEXT_TOKENS, ClaudeCode, Fleet
from tests.clients.terminal import Terminal, terminal
from tests.fakes.fleet_process import FleetProcess, fleet_process
from tests.fakes.scripted_models import write_script
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # it is installed first

FOUND_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
SAID = "Hello from the script."
RULES: list[dict[str, Any]] = [
    {"contains": ["Bad (refusal)"], "answer": '{"title": "A talk"}'},
    # Longer than any test: it ends when it is stopped.
    {"latest_contains": ["long story"], "answer": "One two three. " * 2000},
    {"answer": SAID},
]
AGENT = ClaudeCode()
# Of what it leaves out by CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC, the list of models is one.
QUIET = {"DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1", "DISABLE_AUTOUPDATER": "1"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FleetProcess, ModelId]]:
    """A fleet with one model, which has a name of the house."""
    root = tmp_path_factory.mktemp("fleet")
    model = write_script(
        root / "script", *RULES, context_tokens=CONTEXT_TOKENS, tokens_per_second=200
    )
    models_toml = f'[[models]]\nid = "{model}"\n\n[aliases]\n"house" = "{model}"\n'
    with fleet_process(root, model, models_toml=models_toml) as fleet:
        yield fleet, model
        fleet.stop()


@contextlib.contextmanager
def claude(
    fleet: FleetProcess, model: str, command: Path, root: Path, **more: str
) -> Iterator[Terminal]:
    """It, after its first questions, in a folder that it trusts; it is ready for a prompt."""
    home, work = root / "home", root / "work"
    for folder in (home, work):
        folder.mkdir()
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    settings = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(work): trusted}}
    (home / ".claude.json").write_text(json.dumps(settings), encoding="utf-8")
    environment = AGENT.environment(Fleet(fleet.base_url, ModelId(model))) | QUIET
    del environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"]
    environment |= {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    # Flat text, one line for each thing, which a test can read as well.
    ask = [str(command), "--ax-screen-reader", "--model", model]
    with terminal(ask, work, environment) as screen:
        screen.see("/effort")
        yield screen


def test_local_models_are_found_shown_and_chosen(
    house: tuple[FleetProcess, ModelId], installed: Callable[[str], Path], tmp_path: Path
) -> None:
    fleet, model = house
    command = installed(AGENT.package) / AGENT.command
    asked = {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"}
    with claude(fleet, "opus", command, tmp_path, **asked) as screen:
        wait_until(lambda: found(tmp_path / "home"), timeout_s=FOUND_TIMEOUT_S)
        wanted = {"anthropic/house": "house", f"anthropic/{model}": model}
        assert wanted.items() <= found(tmp_path / "home").items()
        screen.type("/model", until="Set the AI model")
        screen.type("\r", until="Enter selection")
        number = screen.see(r"(\d+)\. house — From gateway")[1]
        screen.type(f"{number}\r", until="(?i)set model to .*house")
        screen.type("Hello?", until=r"Hello\?")
        screen.type("\r", until=f"claude: {SAID}")


def test_its_count_of_tokens_is_the_models(
    house: tuple[FleetProcess, ModelId], installed: Callable[[str], Path], tmp_path: Path
) -> None:
    fleet, _ = house
    command = installed(AGENT.package) / AGENT.command
    with claude(fleet, "house", command, tmp_path) as screen:
        screen.type("/context", until="Visualize current context usage")
        tools = screen.type("\r", until=r"System tools: ([\d.]+)k tokens")
    # Every byte is a token here; its own estimate is a quarter of that.
    assert float(tools[1]) > 40


def test_escape_stops_the_model(
    house: tuple[FleetProcess, ModelId], installed: Callable[[str], Path], tmp_path: Path
) -> None:
    fleet, model = house
    command = installed(AGENT.package) / AGENT.command
    with claude(fleet, "house", command, tmp_path) as screen:
        screen.type("Tell a long story", until="long story")
        screen.type("\r", until="claude: One two")
        assert fleet.model(model).running >= 1
        screen.type("\x1b", until="(?i)interrupted")
        fleet.wait_idle(model, timeout_s=STOP_TIMEOUT_S)
        screen.type("Hello?", until=r"Hello\?")
        screen.type("\r", until=f"claude: {SAID}")


def found(home: Path) -> dict[str, Any]:
    """Return what it keeps of the list: the names that it shows, by id."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        kept = json.loads((home / ".claude" / "cache" / "gateway-models.json").read_text())
        return {model["id"]: model["display_name"] for model in kept["models"]}
    return {}
