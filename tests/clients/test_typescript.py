"""The official SDKs for TypeScript: each runs a file of tests of its own under Node."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.install import npm_install
from tests.fakes.fleet_process import fleet_process
from tests.fakes.scripted_models import call, write_script

pytestmark = pytest.mark.timeout(900)  # they are installed first

SUITES = Path(__file__).parent / "typescript"
RUN_TIMEOUT_S = 300
DEGREES = {"Köln": "18 degrees", "Paris": "21 degrees"}
CALLS: list[dict[str, Any]] = [{"city": "Köln", "days": [1, 2]}, {"city": "Paris", "days": []}]
PLACE = {"city": "Köln", "degrees": 18}
TEXTS: dict[str, Any] = {
    "hello": "Hello, 世界 — from the script. 🙂",
    "thought": "They ask for two cities.",
    "look": "I look at both.",
    "calls": CALLS,
    "said": "Köln has 18 °C, Paris 21 °C.",
    "place": PLACE,
    "short": "Ok.",
}
RULES: list[dict[str, Any]] = [
    {"latest_contains": ["Only call"], "answer": call("get_weather", **CALLS[0])},
    {
        "turn": 1,
        "contains": ["weather", "get_weather"],
        "answer": f"<think>\n{TEXTS['thought']}\n</think>\n\n{TEXTS['look']}\n"
        + "\n".join(call("get_weather", **arguments) for arguments in CALLS),
    },
    {"turn": 2, "latest_contains": list(DEGREES.values()), "answer": TEXTS["said"]},
    {"latest_contains": ["as JSON"], "answer": json.dumps(PLACE, ensure_ascii=False)},
    {"latest_contains": ["Leave the form"], "answer": '{"city": "Köln", "size": 1}'},
    {"answer": TEXTS["hello"]},
]
BUSY_RULES: list[dict[str, Any]] = [
    # Longer than any test: it ends when its client goes.
    {"latest_contains": ["Take your time"], "answer": "One two three. " * 400},
    {"answer": TEXTS["short"]},
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A fleet of two scripted models, of which one takes one request at a time."""
    root = tmp_path_factory.mktemp("fleet")
    model = write_script(root / "script", *RULES)
    busy = write_script(root / "busy", *BUSY_RULES, tokens_per_second=5)
    models_toml = (
        f'[[models]]\nid = "{model}"\n\n'
        f'[[models]]\nid = "{busy}"\nmax_in_flight = 1\nmax_queue_depth = 1\n\n'
        f'[aliases]\n"scripted" = "{model}"\n\n'
        f'[tiers]\nopus = "{model}"\nsonnet = "{model}"\nhaiku = "{model}"\n'
    )
    with fleet_process(root, model, busy, models_toml=models_toml) as fleet:
        yield {
            "url": fleet.base_url,
            "model": model,
            "busy": busy,
            "texts": TEXTS,
            "written": [json.dumps(each, ensure_ascii=False) for each in CALLS],
            "degrees": DEGREES,
        }
        fleet.stop()


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the SDKs and the files, which find them from where they lie."""
    folder = tmp_path_factory.mktemp("npm") / "n"
    npm_install(folder, "openai", "@anthropic-ai/sdk", "zod")
    return Path(shutil.copytree(SUITES, folder / "suites"))


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_the_sdk_takes_what_comes(sdk: str, suites: Path, told: dict[str, Any]) -> None:
    done = subprocess.run(
        ["node", "--test-reporter=spec", str(suites / f"{sdk}.test.mjs")],
        env={"PATH": os.environ["PATH"], "HOME": str(suites), "TOLD": json.dumps(told)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
