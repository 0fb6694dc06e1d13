"""Fixtures of the gateway's integration tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import GatewayClient
from tests.fakes.http_process import MODEL, HttpProcess
from tests.fakes.scripts import whole


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on the loop of the HTTP workers: its transports are none of asyncio's classes."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def neuron() -> AsyncIterator[FakeNeuron]:
    """A node that has the model on disk, and answers whole."""
    async with FakeNeuron({MODEL: 100}) as made:
        made.script = whole
        yield made


@pytest.fixture
async def neurons() -> AsyncIterator[list[FakeNeuron]]:
    """Two nodes that have the model ready."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in ("one", "two"):
            neuron = await stack.enter_async_context(FakeNeuron({MODEL: 100}, name=name))
            neuron.put(MODEL)
            made.append(neuron)
        yield made


@pytest.fixture(scope="module")
def http_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProcess]:
    """The HTTP server, started once for all tests of a module that leave it as it was."""
    process = HttpProcess(tmp_path_factory.mktemp("http"))
    yield process
    process.close()


@pytest.fixture
async def http(http_process: HttpProcess, neurons: list[FakeNeuron]) -> HttpProcess:
    """That server over both nodes, ready to answer."""
    http_process.publish(*(neuron.endpoint for neuron in neurons))
    async with GatewayClient(http_process.base_url) as client:
        await client.wait_ready()
    return http_process


@pytest.fixture
async def client(http: HttpProcess) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(http.base_url) as made:
        yield made
