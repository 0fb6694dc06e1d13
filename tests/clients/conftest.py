"""Real clients, installed into a temporary folder, at a fleet with a scripted model."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.install import npm_install, pip_install


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what installs an npm package, once, and returns the folder of its commands."""

    @functools.cache
    def install(package: str) -> Path:
        return npm_install(tmp_path_factory.mktemp("npm") / "n", package)

    return install


@pytest.fixture(scope="session")
def python_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of an environment with clients that are written in Python."""
    folder = tmp_path_factory.mktemp("venv") / "v"
    return pip_install(folder, "openai-agents", "litellm", "llm")
