"""Claude Code and codex with short prompts on SmolLM2: a small model's answer reaches the user."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.agents import ClaudeCode, Codex, Fleet
from tests.clients.measured import turn
from tests.fakes.fleet_process import FleetProcess, fleet_process
from tests.fakes.model_cache import SMOLLM2

pytestmark = pytest.mark.timeout(900)  # clients are installed, and a model fetched

MODELS_TOML = f"""
[[models]]
id = "{SMOLLM2}"
tool_parser = "none"  # else it might answer with calls
"""
BRIEF = "You answer in one short sentence."
ASKED = "What is the capital of France?"
CAPITALS = ["Paris", "Rome", "Madrid"]
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"enum": CAPITALS}},
    "required": ["capital"],
    "additionalProperties": False,
}
"""Of what is answered: so small a model may go on to the end of its context."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with fleet_process(tmp_path_factory.mktemp("fleet"), models_toml=MODELS_TOML) as started:
        yield started
        started.stop()


def test_claude_code(fleet: FleetProcess, installed: Callable[[str], Path], tmp_path: Path) -> None:
    agent = ClaudeCode()
    command = [
        *(str(installed(agent.package) / agent.command), "-p", ASKED, "--model", SMOLLM2),
        *("--system-prompt", BRIEF, "--tools", "", "--output-format", "json"),
    ]
    format_ = {"type": "json_schema", "schema": SCHEMA}
    environment = {
        **agent.environment(Fleet(fleet.base_url, SMOLLM2)),
        "CLAUDE_CODE_EXTRA_BODY": json.dumps({"output_config": {"format": format_}}),
    }
    run = turn(fleet, SMOLLM2, command, tmp_path, environment)
    result = json.loads(run.said)
    assert result["subtype"] == "success"
    assert json.loads(result["result"])["capital"] in CAPITALS
    told = result["usage"]
    assert told["input_tokens"] + told["cache_read_input_tokens"] == run.prompt_tokens > 0
    assert told["output_tokens"] == run.completion_tokens > 0


def test_codex(fleet: FleetProcess, installed: Callable[[str], Path], tmp_path: Path) -> None:
    agent = Codex()
    agent.configure(tmp_path, Fleet(fleet.base_url, SMOLLM2))
    schema, instructions = tmp_path / "schema.json", tmp_path / "instructions.md"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    instructions.write_text(BRIEF, encoding="utf-8")
    features = ("shell_tool", "unified_exec", "goals", "view_image")
    command = [
        *(str(installed(agent.package) / agent.command), "exec", "--skip-git-repo-check"),
        *("--json", "--output-schema", str(schema)),
        *("-c", f"model_instructions_file={json.dumps(str(instructions))}"),
        *(part for feature in features for part in ("--disable", feature)),
        ASKED,
    ]
    run = turn(fleet, SMOLLM2, command, tmp_path, {})
    events = [json.loads(line) for line in run.said.splitlines()]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    (text,) = (item["text"] for item in items if item["type"] == "agent_message")
    assert json.loads(text)["capital"] in CAPITALS
    assert events[-1]["type"] == "turn.completed"
    told = events[-1]["usage"]
    assert told["input_tokens"] == run.prompt_tokens > 0
    assert told["output_tokens"] == run.completion_tokens > 0
