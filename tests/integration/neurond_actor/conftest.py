"""Supervisors that are stopped after the test, whatever it did to them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.actor_node import PACED, Node


@pytest.fixture
async def make_node(tmp_path: Path) -> AsyncIterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(**settings: Any) -> Node:
        made.append(Node(tmp_path, **settings))
        return made[-1]

    yield make
    for node in made:
        await node.supervisor.stop()


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    started = make_node()
    await started.start()
    return started


@pytest.fixture
async def paced_node(make_node: Callable[..., Node]) -> Node:
    """One whose actor has hardly more of an answer when a pause arrives than when it was sent."""
    started = make_node(backend=PACED)
    await started.start()
    return started
