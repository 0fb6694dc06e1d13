"""Record what clients send, for the contract tests: `python -m tests.clients.record`.

Each client is installed and run at a scripted model; the first requests of its task are written,
without their words (`scrub`), into tests/unit/cortex_core/dialects/fixtures/recorded. Run it after
an update of a client, and look at what has changed.
"""

import datetime as dt
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.clients.agents import (
    CONTEXT_TOKENS,
    Agent,
    ClaudeCode,
    Codex,
    Fleet,
    OpenCode,
    QwenCode,
)
from tests.clients.install import npm_install, pip_install
from tests.clients.relay import relay_to
from tests.clients.scrub import scrub, scrub_headers
from tests.clients.tasks import DONE, wrong_file
from tests.clients.test_agents import rules
from tests.clients.test_open_webui import (
    ANSWER_TIMEOUT_S,
    RULES,
    ask_as_the_page_does,
    log_in,
    open_webui,
)
from tests.clients.test_python_clients import AGENT, LITELLM_BASES, LITELLM_TOOL, WEATHER_RULES, run
from tests.clients.wire_requests import WireRequest, requests_in
from tests.fakes.up_process import scripted_up
from tests.fakes.waiting import wait_until

FOLDER = Path(__file__).parents[1] / "unit/cortex_core/dialects/fixtures/recorded"
DIALECTS = {
    "/v1/chat/completions": "openai_chat",
    "/v1/messages": "anthropic_messages",
    "/v1/responses": "openai_responses",
}


class Client(NamedTuple):
    """What is written of a client."""

    name: str
    version: str
    turns: dict[str, WireRequest]
    """By the name of the fixture."""


def generating(asked: list[bytearray]) -> list[WireRequest]:
    """Return the requests for an answer; those of one connection are in order."""
    found = [request for data in asked for request in requests_in(bytes(data))]
    return [one for one in found if one.target.partition("?")[0] in DIALECTS]


def record_agent(agent: Agent, name: str, root: Path) -> Iterator[Client]:
    bin_folder = npm_install(root / "n", agent.package)
    package = json.loads((bin_folder.parent / agent.package / "package.json").read_text("utf-8"))
    home = root / "home"
    home.mkdir()
    file = wrong_file(root)
    script = rules(agent, file, f"I read it.\n{agent.read(file)}")
    with (
        scripted_up(root / "up", *script, context_tokens=CONTEXT_TOKENS) as up,
        relay_to(up.base_url) as relay,
    ):
        done = agent.run(bin_folder, home, Fleet(relay.base_url, up.model), file.parent)
        assert done.stdout.strip().endswith(DONE), done.stdout + done.stderr
    tasks = [one for one in generating(relay.asked) if one.body.get("tools")]
    tasks.sort(key=lambda one: len(one.body.get("messages") or one.body["input"]))
    yield Client(name, package["version"], numbered(agent.command, tasks[:2]))


def numbered(name: str, turns: list[WireRequest]) -> dict[str, WireRequest]:
    return {f"{name}_{number}": one for number, one in enumerate(turns, 1)}


def version_of(bin_folder: Path, package: str) -> str:
    says = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(bin_folder / "python"), "-c", says]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def record_python(root: Path) -> Iterator[Client]:
    bin_folder = pip_install(root / "v", "openai-agents", "litellm")
    with scripted_up(root / "up", *WEATHER_RULES) as up:

        def asked(program: str, *more: str) -> list[WireRequest]:
            with relay_to(up.base_url) as relay:
                at = [program, relay.base_url, up.model, *more]
                run([str(bin_folder / "python"), "-c", *at], root)
            return generating(relay.asked)

        # It runs its agent twice, the second time with a stream.
        turns = numbered("openai_agents", asked(AGENT, "Responses")[2:])
        yield Client("openai-agents", version_of(bin_folder, "openai-agents"), turns)
        requests = asked(LITELLM_BASES + LITELLM_TOOL)
        turns = numbered("litellm_openai", requests[:2]) | numbered(
            "litellm_anthropic", requests[2:]
        )
        yield Client("LiteLLM", version_of(bin_folder, "litellm"), turns)


def record_open_webui(root: Path) -> Iterator[Client]:
    bin_folder = pip_install(root / "v", "open-webui")
    with (
        scripted_up(root / "up", *RULES, context_tokens=CONTEXT_TOKENS) as up,
        relay_to(up.base_url) as relay,
        open_webui(bin_folder / "open-webui", root / "webui", relay.base_url) as client,
    ):
        log_in(client)
        ask_as_the_page_does(client, up.model)
        wait_until(lambda: len(generating(relay.asked)) == 2, timeout_s=ANSWER_TIMEOUT_S)
    chat, title = generating(relay.asked)
    turns = {"open_webui_chat": chat, "open_webui_title": title}
    yield Client("open-webui", version_of(bin_folder, "open-webui"), turns)


def write(client: Client, folder: Path = FOLDER) -> None:
    for name, one in client.turns.items():
        case = {
            "client": client.name,
            "version": client.version,
            "recorded": dt.datetime.now(dt.UTC).date().isoformat(),
            "dialect": DIALECTS[one.target.partition("?")[0]],
            "target": one.target,
            "headers": scrub_headers(one.headers),
            "body": scrub(one.body),
        }
        text = json.dumps(case, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {client.name} {client.version}\n")


AGENTS = (
    (ClaudeCode(), "Claude Code"),
    (Codex(), "codex"),
    (OpenCode(), "opencode"),
    (QwenCode(), "Qwen Code"),
)
RECORDERS = (
    *(functools.partial(record_agent, *each) for each in AGENTS),
    record_python,
    record_open_webui,
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for record in RECORDERS:
        with tempfile.TemporaryDirectory() as root:
            for client in record(Path(root)):
                write(client)


if __name__ == "__main__":
    main()
