"""Processes in which Triton's kernels are interpreted or compiled."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run_module(module: str, **environment: str) -> dict:
    """Run a module in a process of its own and return the JSON that it writes; or skip."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    process = subprocess.run(
        [sys.executable, "-m", module],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)
