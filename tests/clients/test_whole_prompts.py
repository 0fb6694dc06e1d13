"""Claude Code and codex with their whole prompts, two turns, on a model that computes.

What is measured is printed (`-s` shows it), for docs/benchmarks.md.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.agents import ClaudeCode, Codex, Fleet
from tests.clients.measured import Turn, turn
from tests.fakes.fleet_process import FleetProcess, fleet_process
from tests.fakes.model_cache import GEMMA3

pytestmark = pytest.mark.timeout(1800)  # clients are installed, and a model fetched

CONTEXT_TOKENS = 32_768
SCHEMA = {
    "type": "object",
    "properties": {"said": {"const": "Hi."}},
    "required": ["said"],
    "additionalProperties": False,
}
"""What is answered: the model is no chat model, and would not end by itself."""
REUSED = 0.95
ASKED = ("Say hi.", "Say it once more.")
MODELS_TOML = f"""
[[models]]
id = "{GEMMA3}"
context_tokens = {CONTEXT_TOKENS}
tool_parser = "none"  # else it might answer with calls
chat_template = '''
{{{{ bos_token }}}}{{% if tools %}}System: {{{{ tools | tojson }}}}
{{% endif %}}{{% for m in messages %}}{{{{ m.role | capitalize }}}}: {{{{ m.content }}}}
{{% endfor %}}{{% if add_generation_prompt %}}Assistant:{{% endif %}}'''
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    root = tmp_path_factory.mktemp("fleet")
    with fleet_process(root, GEMMA3, models_toml=MODELS_TOML) as started:
        yield started
        started.stop()


def test_claude_code(fleet: FleetProcess, installed: Callable[[str], Path], tmp_path: Path) -> None:
    agent = ClaudeCode()
    command = installed(agent.package) / agent.command
    format_ = {"format": {"type": "json_schema", "schema": SCHEMA}}
    environment = {
        **agent.environment(Fleet(fleet.base_url, GEMMA3)),
        "CLAUDE_CODE_EXTRA_BODY": json.dumps({"output_config": format_}),
    }
    ask = [str(command), "--model", GEMMA3, "-p"]
    first = turn(fleet, GEMMA3, [*ask, ASKED[0]], tmp_path, environment)
    second = turn(fleet, GEMMA3, [*ask, "--continue", ASKED[1]], tmp_path, environment)
    judge("Claude Code", first, second)


def test_codex(fleet: FleetProcess, installed: Callable[[str], Path], tmp_path: Path) -> None:
    agent = Codex()
    command = installed(agent.package) / agent.command
    agent.configure(tmp_path, Fleet(fleet.base_url, GEMMA3))
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    ask = [str(command), "exec", "--skip-git-repo-check", "--output-schema", str(schema)]
    first = turn(fleet, GEMMA3, [*ask, ASKED[0]], tmp_path, {})
    second = turn(fleet, GEMMA3, [*ask, "resume", "--last", ASKED[1]], tmp_path, {})
    judge("codex", first, second)


def judge(name: str, *turns: Turn) -> None:
    """Print what was measured; the last turn found its prompt in the cache."""
    for number, one in enumerate(turns, 1):
        share = one.cached_tokens / one.prompt_tokens
        sys.stdout.write(
            f"{name}, turn {number}: {one.prompt_tokens} tokens, {one.cached_tokens} cached "
            f"({share:.1%}), first token after {one.ttft_s:.2f} s\n"
        )
    assert turns[-1].cached_tokens >= REUSED * turns[-1].prompt_tokens
