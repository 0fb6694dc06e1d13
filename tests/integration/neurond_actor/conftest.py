"""Supervisors that are stopped after the test, whatever it did to them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.actor_node import Node


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
async def narrow_node(make_node: Callable[..., Node]) -> Node:
    """One whose ring takes some 200 tokens: little is made before a pause has arrived."""
    started = make_node(ring_bytes=4096)
    await started.start()
    return started
