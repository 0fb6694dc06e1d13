"""Real clients, installed into a temporary folder, at a fleet with a scripted model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 120


class NodeClient:
    """A command of an npm package, with a home folder of its own."""

    def __init__(self, command: Path, home: Path) -> None:
        self.command = command
        self.home = home

    def run(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end, without a terminal."""
        return subprocess.run(
            [str(self.command), *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )


def npm_install(folder: Path, package: str, command: str) -> NodeClient:
    """Install a package of the npm registry; skip the test where there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder.mkdir(parents=True)
    home = folder / "home"
    home.mkdir()
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), package],
        check=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    return NodeClient(folder / "node_modules" / ".bin" / command, home)


@pytest.fixture(scope="session")
def claude_code(tmp_path_factory: pytest.TempPathFactory) -> NodeClient:
    folder = tmp_path_factory.mktemp("npm") / "claude"
    return npm_install(folder, "@anthropic-ai/claude-code", "claude")


@pytest.fixture(scope="session")
def codex(tmp_path_factory: pytest.TempPathFactory) -> NodeClient:
    return npm_install(tmp_path_factory.mktemp("npm") / "codex", "@openai/codex", "codex")


@pytest.fixture(scope="session")
def python_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of an environment with clients that are written in Python."""
    folder = tmp_path_factory.mktemp("venv") / "v"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "openai-agents", "litellm", "llm"],
        check=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    return folder / "bin"
