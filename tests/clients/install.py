"""Clients are installed from their registries into temporary folders, as anyone would."""

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL_TIMEOUT_S = 1500


def npm_install(folder: Path, *packages: str) -> Path:
    """Return the folder of the packages' commands; skip the test where there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder.mkdir(parents=True)
    subprocess.run(
        [
            npm,
            "install",
            "--loglevel",
            "error",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(folder),
            *packages,
        ],
        check=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    return folder / "node_modules" / ".bin"


def pip_install(folder: Path, *packages: str) -> Path:
    """Return the `bin` folder of a new environment with these packages.

    PyTorch, where one needs it, is of the version that is here: builds for CPUs are found by it.
    `PIP_FLAGS` are as in the Makefile.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(f"torch=={importlib.metadata.version('torch')}\n", encoding="utf-8")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    flags = ["--disable-pip-version-check", *shlex.split(os.environ.get("PIP_FLAGS", ""))]
    subprocess.run(
        [*pip, *flags, "-c", str(constraints), *packages], check=True, timeout=INSTALL_TIMEOUT_S
    )
    return folder / "bin"
