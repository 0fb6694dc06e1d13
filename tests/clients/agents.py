"""Coding agents of the npm registry: where each reads its settings, how its tools are called."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from cortex_core.ids import ModelId
from tests.clients.tasks import RIGHT, TASK, WRONG
from tests.fakes.scripted_models import call

RUN_TIMEOUT_S = 120
CONTEXT_TOKENS = 200_000
"""Their whole prompts, in a tokenizer of bytes."""
OUTPUT_TOKENS = 8192


class Fleet(NamedTuple):
    """Where an agent is pointed at."""

    base_url: str
    model: ModelId


class Agent:
    """One agent, which does `TASK` without a terminal and without asking."""

    package: str
    command: str
    asides: tuple[dict[str, Any], ...] = ()
    """Rules for what it asks the model beside the task."""

    def configure(self, home: Path, fleet: Fleet) -> None:
        """Write the settings that it reads in its home folder, if any."""

    def set_up(self, home: Path, fleet: Fleet) -> list[str]:
        """Return a command line of its own that keeps its settings, if it has one."""
        return []

    def environment(self, fleet: Fleet) -> dict[str, str]:
        return {}

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        """Return the command line after the command's name."""
        raise NotImplementedError

    def read(self, file: Path) -> str:
        """Return a call of its own tool that reads the file."""
        raise NotImplementedError

    def edit(self, file: Path) -> str:
        """Return a call of its own tool that corrects the file."""
        raise NotImplementedError

    def run(
        self, bin_folder: Path, home: Path, fleet: Fleet, work: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end in the folder `work`."""
        self.configure(home, fleet)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            **self.environment(fleet),
        }

        def call_it(arguments: list[str]) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(bin_folder / self.command), *arguments],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
            )

        if settings := self.set_up(home, fleet):
            done = call_it(settings)
            if done.returncode != 0:
                return done
        return call_it(self.arguments(home, fleet))


class ClaudeCode(Agent):
    package, command = "@anthropic-ai/claude-code", "claude"

    def environment(self, fleet: Fleet) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": fleet.base_url,
            "ANTHROPIC_AUTH_TOKEN": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        return ["-p", TASK, "--model", fleet.model, "--allowedTools", "Read,Edit"]

    def read(self, file: Path) -> str:
        return call("Read", file_path=str(file))

    def edit(self, file: Path) -> str:
        return call("Edit", file_path=str(file), old_string=WRONG, new_string=RIGHT)


class Codex(Agent):
    package, command = "@openai/codex", "codex"

    def configure(self, home: Path, fleet: Fleet) -> None:
        write(
            home / ".codex" / "config.toml",
            f'model = "{fleet.model}"\nmodel_provider = "cortex"\n'
            f'[model_providers.cortex]\nname = "cortex"\nbase_url = "{fleet.base_url}/v1"\n'
            'wire_api = "responses"\n',
        )

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        # Its own sandbox needs namespaces that a container may not give; the folder is a test's.
        return ["exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", TASK]

    def read(self, file: Path) -> str:
        return call("exec_command", cmd=f"cat {file.name}")

    def edit(self, file: Path) -> str:
        return call("exec_command", cmd=f"sed -i 's/{WRONG}/{RIGHT}/' {file.name}; cat {file.name}")


class OpenCode(Agent):
    package, command = "opencode-ai", "opencode"
    asides = ({"contains": ["You are a title generator."], "answer": "A wrong sum"},)

    def configure(self, home: Path, fleet: Fleet) -> None:
        model = {"limit": {"context": CONTEXT_TOKENS, "output": OUTPUT_TOKENS}}
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "cortex",
            "options": {"baseURL": f"{fleet.base_url}/v1", "apiKey": "none"},
            "models": {fleet.model: model},
        }
        settings = {"model": f"cortex/{fleet.model}", "provider": {"cortex": provider}}
        write(home / ".config" / "opencode" / "opencode.json", json.dumps(settings))

    def environment(self, fleet: Fleet) -> dict[str, str]:
        return {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        return ["run", TASK]

    def read(self, file: Path) -> str:
        return call("read", filePath=str(file))

    def edit(self, file: Path) -> str:
        return call("edit", filePath=str(file), oldString=WRONG, newString=RIGHT)


class QwenCode(Agent):
    package, command = "@qwen-code/qwen-code", "qwen"
    asides = ({"latest_contains": ["Managed memory directory:"], "answer": "Nothing to keep."},)

    def environment(self, fleet: Fleet) -> dict[str, str]:
        return {
            "OPENAI_BASE_URL": f"{fleet.base_url}/v1",
            "OPENAI_API_KEY": "none",
            "OPENAI_MODEL": fleet.model,
        }

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        return ["--auth-type", "openai", "--yolo", TASK]

    def read(self, file: Path) -> str:
        return call("read_file", file_path=str(file))

    def edit(self, file: Path) -> str:
        return call("edit", file_path=str(file), old_string=WRONG, new_string=RIGHT)


class Continue(Agent):
    package, command = "@continuedev/cli", "cn"

    def configure(self, home: Path, fleet: Fleet) -> None:
        write(
            self._config(home),
            f"name: cortex\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: {fleet.model}\n"
            f"    provider: openai\n    model: {fleet.model}\n    apiBase: {fleet.base_url}/v1\n"
            "    apiKey: none\n    roles: [chat, edit, apply]\n    capabilities: [tool_use]\n",
        )

    def environment(self, fleet: Fleet) -> dict[str, str]:
        return {"CONTINUE_TELEMETRY_ENABLED": "0"}

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        return ["--config", str(self._config(home)), "--auto", "-p", TASK]

    def read(self, file: Path) -> str:
        return call("Read", filepath=str(file))

    def edit(self, file: Path) -> str:
        return call("Edit", file_path=str(file), old_string=WRONG, new_string=RIGHT)

    def _config(self, home: Path) -> Path:
        return home / ".continue" / "config.yaml"


class Cline(Agent):
    package, command = "cline", "cline"

    def set_up(self, home: Path, fleet: Fleet) -> list[str]:
        data = ["--data-dir", str(self._data(home))]
        base_url = f"{fleet.base_url}/v1"
        return ["auth", *data, "-p", "openai", "-k", "none", "-m", fleet.model, "-b", base_url]

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        # With a folder of its own for its data it leaves no daemon behind.
        return ["--data-dir", str(self._data(home)), TASK]

    def read(self, file: Path) -> str:
        return call("read_files", files=[{"path": str(file)}])

    def edit(self, file: Path) -> str:
        return call("editor", path=str(file), old_text=WRONG, new_text=RIGHT)

    def _data(self, home: Path) -> Path:
        return home / "cline"


class Pi(Agent):
    package, command = "@mariozechner/pi-coding-agent", "pi"

    def configure(self, home: Path, fleet: Fleet) -> None:
        model = {"id": fleet.model, "contextWindow": CONTEXT_TOKENS, "maxTokens": OUTPUT_TOKENS}
        provider = {
            "baseUrl": f"{fleet.base_url}/v1",
            "api": "openai-completions",
            "apiKey": "none",
            "models": [model],
        }
        settings = json.dumps({"providers": {"cortex": provider}})
        write(home / ".pi" / "agent" / "models.json", settings)

    def environment(self, fleet: Fleet) -> dict[str, str]:
        return {"PI_OFFLINE": "1", "PI_TELEMETRY": "0"}

    def arguments(self, home: Path, fleet: Fleet) -> list[str]:
        return ["--model", f"cortex/{fleet.model}", "-p", TASK]

    def read(self, file: Path) -> str:
        return call("read", path=str(file))

    def edit(self, file: Path) -> str:
        return call("edit", path=str(file), edits=[{"oldText": WRONG, "newText": RIGHT}])


AGENTS = (ClaudeCode(), Codex(), OpenCode(), QwenCode(), Continue(), Cline(), Pi())


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
