"""When nodes are asked, and that every poll is reported."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cortex_core.errors import NodeUnavailable
from cortex_core.ids import NodeName
from cortex_core.neuron_api import Discovery, Health, ModelsResponse
from cortexd.fleet.events import NodeFailed, NodePolled
from cortexd.fleet.poller import Poller
from tests.fakes.fleet_world import polled
from tests.fakes.waiting import wait_until_async

N = NodeName("n")


class Polled:
    """A poller of one node that answers as the test says, and its reports."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.reports: list[NodePolled | NodeFailed] = []
        self.error: Exception | None = None
        self.defects: list[Exception] = []
        self.hang = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = False
        self.now = 0.0
        self.poller = Poller(
            {N: "http://n:1"},
            self,
            report=self.take,
            interval_s=lambda _node: 3600.0,
            timeout_s=timeout_s,
            clock=lambda: self.now,
        )

    async def discovery(self, endpoint: str) -> Discovery:
        if self.error is not None:
            raise self.error
        if self.hang:
            await asyncio.Event().wait()
        self.waiting = not self.gate.is_set()
        await self.gate.wait()
        self.waiting = False
        return polled("n").discovery

    async def health(self, endpoint: str) -> Health:
        return polled("n").health

    async def models(self, endpoint: str) -> ModelsResponse:
        return ModelsResponse(7, [])

    def take(self, report: NodePolled | NodeFailed) -> None:
        self.reports.append(report)
        if self.defects:
            raise self.defects.pop()

    async def reported(self, count: int) -> None:
        await wait_until_async(lambda: len(self.reports) >= count)


@pytest.fixture
async def node() -> AsyncIterator[Polled]:
    made = Polled()
    yield made
    await made.poller.stop()


@pytest.fixture
async def hanging() -> AsyncIterator[Polled]:
    """A node that never answers, and a poller that does not wait for long."""
    made = Polled(timeout_s=0.05)
    made.hang = True
    yield made
    await made.poller.stop()


async def test_nodes_are_asked_right_away_and_when_told_to(node: Polled) -> None:
    node.poller.start()
    await node.reported(1)
    node.now = 5.0
    node.poller.poll_now(N)
    await node.reported(2)

    first, second = node.reports
    assert isinstance(first, NodePolled)
    assert isinstance(second, NodePolled)
    assert (first.started_at, second.started_at, second.state_version) == (0.0, 5.0, 7)


async def test_a_poll_asked_for_during_a_poll_comes_after_it(hanging: Polled) -> None:
    hanging.poller.start()
    await asyncio.sleep(0)
    hanging.poller.poll_now(N)
    await hanging.reported(2)
    assert [type(report) for report in hanging.reports] == [NodeFailed, NodeFailed]


async def test_only_nodes_not_heard_of_lately_are_asked_again(node: Polled) -> None:
    node.poller.start()
    await node.reported(1)
    node.now = 0.9
    node.poller.poll_if_older(1.0)
    node.now = 1.0
    node.poller.poll_if_older(1.0)
    await node.reported(2)
    (latest,) = node.reports[1:]
    assert isinstance(latest, NodePolled)
    assert latest.started_at == 1.0


async def test_a_node_that_is_being_polled_is_not_polled_again_for_its_age(node: Polled) -> None:
    node.poller.start()
    await node.reported(1)
    node.gate.clear()
    node.now = 1.0
    node.poller.poll_now(N)
    await wait_until_async(lambda: node.waiting)
    node.now = 9.0
    node.poller.poll_if_older(1.0)
    node.gate.set()
    await node.reported(2)
    node.poller.poll_if_older(1.0)  # that one has just ended
    await asyncio.sleep(0)
    assert len(node.reports) == 2
    assert not node.waiting


async def test_a_report_that_is_not_taken_in_is_not_the_last_one(node: Polled) -> None:
    node.defects.append(ValueError("too large"))
    node.poller.start()
    await node.reported(1)
    node.poller.poll_now(N)
    await node.reported(2)
    assert [type(report) for report in node.reports] == [NodePolled, NodePolled]


@pytest.mark.parametrize("error", [NodeUnavailable("cannot reach n"), ValueError("odd")])
async def test_whatever_goes_wrong_is_reported(node: Polled, error: Exception) -> None:
    node.error = error
    node.poller.start()
    await node.reported(1)
    (report,) = node.reports
    assert isinstance(report, NodeFailed)
    assert str(error) in report.error.message
