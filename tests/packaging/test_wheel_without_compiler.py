"""A wheel that is built where there is no compiler: it installs anywhere, runs, and says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from cortex_core.neuron_api import Discovery, ModelsResponse
from tests.fakes.real_node import TINY, add_tiny, real_node
from tests.fakes.wire import decoded
from tests.packaging.conftest import BUILD_TIMEOUT_S, REPOSITORY

SOURCES = (
    "cortex_core",
    "cortexd",
    "neurond",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


def pip(*arguments: str, **environment: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        env=os.environ | environment,
        capture_output=True,
        timeout=BUILD_TIMEOUT_S,
        check=True,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout, built = (tmp_path_factory.mktemp(name) for name in ("checkout", "built"))
    not_built = shutil.ignore_patterns("*.so", "__pycache__")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=not_built)
        else:
            shutil.copy(source, checkout)
    building = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built))
    pip(*building, str(checkout), CXX=str(checkout / "absent"))
    (made,) = built.iterdir()
    return made


@pytest.mark.timeout(BUILD_TIMEOUT_S)
def test_it_is_for_any_machine_and_a_node_of_it_computes_with_torch(
    wheel: Path, tmp_path: Path
) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    add_tiny(tmp_path / "state")
    with real_node(tmp_path, {"PYTHONPATH": str(site)}) as node:
        (device,) = decoded(node.get("/discovery"), Discovery).devices
        assert (device.attention_backend, device.kernels) == ("torch-reference", None)
        assert "portable: it is not built; install g++" in (device.kernels_unavailable_reason or "")
        loaded = node.post("/models/load", json={"model_id": TINY})
        assert loaded.status_code == 200, loaded.text
        (model,) = decoded(node.get("/models"), ModelsResponse).models
        assert (model.status, model.dtype, model.kernels) == ("ready", "float32", "torch")
        asked = {"model": TINY, "prompt": "abc", "max_tokens": 4, "temperature": 0}
        answer = node.post("/v1/completions", json=asked)
        assert answer.json()["usage"]["completion_tokens"] == 4, answer.text
