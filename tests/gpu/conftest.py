"""What is here runs on a CUDA device or not at all."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neurond.devices import Devices
from tests.fakes.actor_node import Node


def pytest_runtest_setup() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
async def make_node(tmp_path: Path) -> AsyncIterator[Callable[..., Node]]:
    """Nodes over all devices that NVML lists, stopped after the test."""
    made: list[Node] = []

    def make(**settings: Any) -> Node:
        devices = Devices.discover()
        assert devices.cuda_unavailable_reason is None
        made.append(Node(tmp_path, devices, **{"backend": None} | settings))
        return made[-1]

    yield make
    for node in made:
        await node.supervisor.stop()
