"""Asks every node how it is, again and again, and reports what it says. One task per node.

Runs in the fleet actor's loop and decides nothing: how long to wait is asked of its owner, what
an answer means is for `FleetState`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from cortex_core.errors import CortexError, InternalError, Timeout
from cortex_core.ids import NodeName
from cortex_core.logs import kv
from cortex_core.neuron_api import Discovery, Health, ModelsResponse
from cortexd.fleet.events import NodeFailed, NodePolled

log = logging.getLogger(__name__)


class NodeQuestions(Protocol):
    """What is asked of a node at this base URL. `cortexd.neuron_client.NeuronClient` has it."""

    async def discovery(self, endpoint: str) -> Discovery: ...
    async def health(self, endpoint: str) -> Health: ...
    async def models(self, endpoint: str) -> ModelsResponse: ...


class Poller:
    """Polls each node at its own pace; `report` gets one event for every poll."""

    def __init__(
        self,
        nodes: Mapping[NodeName, str],
        client: NodeQuestions,
        *,
        report: Callable[[NodePolled | NodeFailed], None],
        interval_s: Callable[[NodeName], float],
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._nodes = dict(nodes)
        self._client = client
        self._report = report
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._at_once = {name: asyncio.Event() for name in self._nodes}
        self._ended_at: dict[NodeName, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to poll; the first polls start right away."""
        self._tasks = [
            asyncio.create_task(self._watch(name), name=f"poll-{name}") for name in self._nodes
        ]

    def poll_now(self, node: NodeName) -> None:
        """Poll the node at once; if a poll is under way, once more after it."""
        self._at_once[node].set()

    def poll_if_older(self, than_s: float) -> None:
        """Poll at once each node that is not being polled and was not for longer than that."""
        now = self._clock()
        for node, ended_at in self._ended_at.items():
            if now - ended_at >= than_s:
                self.poll_now(node)

    async def stop(self) -> None:
        """End every task."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, node: NodeName) -> None:
        wake = self._at_once[node]
        while True:
            wake.clear()
            self._ended_at.pop(node, None)
            event = await self._poll(node)
            self._ended_at[node] = self._clock()
            try:
                self._report(event)
            except Exception:
                # A defect in what is made of one answer must not blind us to the next.
                log.exception("poll not taken in", extra=kv(node=node))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s(node)):
                    await wake.wait()

    async def _poll(self, node: NodeName) -> NodePolled | NodeFailed:
        endpoint = self._nodes[node]
        started_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                discovery = await self._client.discovery(endpoint)
                health = await self._client.health(endpoint)
                models = await self._client.models(endpoint)
        except TimeoutError:
            late = Timeout(f"cannot poll {node}: no answer within {self._timeout_s:g} s")
            return NodeFailed(node, late)
        except CortexError as ex:
            return NodeFailed(node, ex)
        except Exception as ex:
            log.exception("poll failed", extra=kv(node=node))
            return NodeFailed(node, InternalError(f"cannot poll {node}: {ex}"))
        version = models.state_version
        listed = tuple(models.models)
        return NodePolled(node, discovery, health, version, listed, started_at)
