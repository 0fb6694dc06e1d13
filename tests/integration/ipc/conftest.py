"""Both loops we run on, and what the tests of this folder share."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
import zmq

from cortex_core.ipc.socket_paths import make_runtime_dir
from cortex_core.ipc.sockets import ZmqContext

T = TypeVar("T")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def context() -> Iterator[ZmqContext]:
    context = zmq.Context()
    yield context
    context.term()


@pytest.fixture
def closing(context: ZmqContext) -> Iterator[Callable[[T], T]]:
    """Closes what it is given at the end of the test, last first."""
    opened: list[Any] = []

    def keep(thing: T) -> T:
        opened.append(thing)
        return thing

    yield keep
    for thing in reversed(opened):
        thing.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a socket file may be made."""
    folder = tmp_path / "run"
    make_runtime_dir(folder)
    return folder / "test.sock"
