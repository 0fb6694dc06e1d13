"""Agents whose request finds every place taken: they wait as they are told to, and ask again."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cortex_core.canonical import Event, Failed, GenerateRequest, Started
from cortex_core.errors import QueueFull
from cortex_core.ids import ModelId
from tests.clients.agents import Agent, ClaudeCode, Codex, Fleet
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.neuron_thread import NeuronThread
from tests.fakes.scripts import TEXT, whole
from tests.fakes.serve_process import MODEL, ServeProcess
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # its client is installed first

FULL = QueueFull("cannot queue the request: every place is taken", retry_after_s=1.0)


class FullNode:
    """What a node says that has no place until `frees_after` requests have come to it.

    Attributes:
        refused: how many it has sent away.
    """

    def __init__(self, frees_after: int, *, late: bool) -> None:
        self.refused = 0
        self._frees_after = frees_after
        self._late = late

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[Event]:
        if self.refused >= self._frees_after:
            async for event in whole(request):
                yield event
            return
        self.refused += 1
        if self._late:
            yield Started(request.request_id, request.model, 3)
        yield Failed(FULL.info())


@pytest.fixture(scope="module")
def neuron() -> Iterator[FakeNeuron]:
    made = FakeNeuron({MODEL: 100})
    made.put(MODEL)
    with NeuronThread(made):
        yield made


@pytest.fixture(scope="module")
def gateway(neuron: FakeNeuron, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    # The gateway itself waits for a node to have room; here it is to tell its clients soon.
    soon = {"CORTEX_ADMISSION__MAX_WAIT_S": "0.1"}
    folder = tmp_path_factory.mktemp("serve")
    process = ServeProcess(folder, neuron.endpoint, environment=soon)
    wait_until(lambda: answers(process), timeout_s=60.0)
    yield process
    process.close()


def answers(process: ServeProcess) -> bool:
    try:
        return httpx.get(f"{process.base_url}/v1/models/small").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("agent", [ClaudeCode(), Codex()], ids=lambda agent: agent.command)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_it_asks_again(
    agent: Agent,
    late: bool,
    neuron: FakeNeuron,
    gateway: ServeProcess,
    installed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """`late` is in a stream that has begun."""
    node = FullNode(1, late=late)
    neuron.script = node
    work = tmp_path / "work"
    work.mkdir()
    fleet = Fleet(gateway.base_url, ModelId("small"))
    done = agent.run(installed(agent.package), tmp_path, fleet, work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith(TEXT)
    assert node.refused == 1
