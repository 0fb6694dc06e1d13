"""Real clients, installed into a temporary folder, at a fleet with a scripted model."""

from pathlib import Path

import pytest

from tests.clients.install import pip_install


@pytest.fixture(scope="session")
def python_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of an environment with clients that are written in Python."""
    folder = tmp_path_factory.mktemp("venv") / "v"
    return pip_install(folder, "openai-agents", "litellm", "llm")
