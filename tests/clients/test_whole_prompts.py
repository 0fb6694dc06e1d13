"""Claude Code and codex with their whole prompts, two turns, on a model that computes.

What is measured is printed (`-s` shows it), for docs/benchmarks.md.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.agents import ClaudeCode, Codex, Fleet
from tests.clients.install import npm_install
from tests.fakes.fleet_process import FleetProcess
from tests.fakes.model_cache import GEMMA3, cached_model

pytestmark = pytest.mark.timeout(1800)  # clients are installed, and a model fetched

CONTEXT_TOKENS = 32_768
SCHEMA = {
    "type": "object",
    "properties": {"said": {"const": "Hi."}},
    "required": ["said"],
    "additionalProperties": False,
}
"""What is answered: the model is no chat model, and would not end by itself."""
TURN_TIMEOUT_S = 600
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


class Turn(NamedTuple):
    """What the gateway counted for one request."""

    prompt_tokens: int
    cached_tokens: int
    ttft_s: float


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    cached_model(GEMMA3)
    fleet = FleetProcess(tmp_path_factory.mktemp("fleet"), models_toml=MODELS_TOML)
    try:
        fleet.start()
        fleet.wait_ready()
        fleet.load(GEMMA3)
        yield fleet
        fleet.stop()
    finally:
        fleet.close()


def test_claude_code(fleet: FleetProcess, tmp_path: Path) -> None:
    agent = ClaudeCode()
    command = npm_install(tmp_path / "npm", agent.package) / agent.command
    format_ = {"format": {"type": "json_schema", "schema": SCHEMA}}
    environment = {
        **agent.environment(Fleet(fleet.base_url, GEMMA3)),
        "CLAUDE_CODE_EXTRA_BODY": json.dumps({"output_config": format_}),
    }
    ask = [str(command), "--model", GEMMA3, "-p"]
    first = turn(fleet, [*ask, ASKED[0]], tmp_path, environment)
    second = turn(fleet, [*ask, "--continue", ASKED[1]], tmp_path, environment)
    judge("Claude Code", first, second)


def test_codex(fleet: FleetProcess, tmp_path: Path) -> None:
    agent = Codex()
    command = npm_install(tmp_path / "npm", agent.package) / agent.command
    agent.configure(tmp_path, Fleet(fleet.base_url, GEMMA3))
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    ask = [str(command), "exec", "--skip-git-repo-check", "--output-schema", str(schema)]
    first = turn(fleet, [*ask, ASKED[0]], tmp_path, {})
    second = turn(fleet, [*ask, "resume", "--last", ASKED[1]], tmp_path, {})
    judge("codex", first, second)


def turn(fleet: FleetProcess, command: list[str], home: Path, environment: dict[str, str]) -> Turn:
    """Run a client to its end; return what its one request came to."""
    before = counted(fleet)
    done = subprocess.run(
        command,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TURN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    requests, prompt, cached, ttft_s = (
        now - then for now, then in zip(counted(fleet), before, strict=True)
    )
    assert requests == 1, f"{requests} requests"
    return Turn(int(prompt), int(cached), ttft_s)


def counted(fleet: FleetProcess) -> tuple[float, ...]:
    names = (
        "cortex_requests_total",
        "cortex_prompt_tokens_total",
        "cortex_cached_prompt_tokens_total",
        "cortex_time_to_first_token_seconds_sum",
    )
    return tuple(fleet.metric(name, model=GEMMA3) for name in names)


def judge(name: str, *turns: Turn) -> None:
    """Print what was measured; the last turn found its prompt in the cache."""
    for number, one in enumerate(turns, 1):
        share = one.cached_tokens / one.prompt_tokens
        sys.stdout.write(
            f"{name}, turn {number}: {one.prompt_tokens} tokens, {one.cached_tokens} cached "
            f"({share:.1%}), first token after {one.ttft_s:.2f} s\n"
        )
    assert turns[-1].cached_tokens >= REUSED * turns[-1].prompt_tokens
