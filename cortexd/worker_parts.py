"""Everything one HTTP worker is made of, put together on its event loop and taken apart again."""

import os
import time
from typing import Self, cast

import msgspec
import zmq
from prometheus_client import CollectorRegistry

from cortex_core.asgi import App
from cortex_core.held_bodies import HeldBodies
from cortex_core.ipc.channel import Channel
from cortex_core.ipc.counters import CounterTable
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader
from cortex_core.ipc.sockets import connect_socket
from cortexd.app import AppParts, FalconApp, create_app
from cortexd.child_env import ChildEnvironment
from cortexd.drain import Drain
from cortexd.embedding import EmbeddingGateway
from cortexd.fleet.client import FleetClient
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS
from cortexd.fleet.protocol import ToWorker
from cortexd.gateway import Gateway
from cortexd.metrics import GatewayMetrics
from cortexd.neuron_client import NeuronClient
from cortexd.resources.request_body import MAX_BODY_BYTES
from cortexd.responses.store import ResponseStore, StoreSettings

FLEET_HWM_MESSAGES = 4096
"""Messages that may wait for the fleet actor while it is away; more are refused."""
FIRST_SNAPSHOT_S = 2.0
"""Longer than the first polls of the nodes may keep the fleet actor from its first snapshot."""
BODY_WAIT_S = 30.0
"""How long a body waits for its place; see `cortex_core.held_bodies`."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What the configuration says of a worker."""

    store: StoreSettings
    drop_billing_line: bool
    held_bodies_bytes: int


class WorkerParts:
    """Owns this worker's mappings, its channel to the fleet actor and its connections to nodes."""

    def __init__(
        self, environment: ChildEnvironment, row: int, drain: Drain, settings: WorkerSettings
    ) -> None:
        """Put everything together; the event loop runs already.

        `row` is this worker's row of the in-flight table.
        """
        self._segments = [
            Segment.attach(os.dup(fd)) for fd in (environment.snapshot_fd, environment.in_flight_fd)
        ]
        snapshot, in_flight = self._segments
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        identity = f"worker-{os.getpid()}-{row}".encode()
        socket = connect_socket(
            self._context,
            zmq.DEALER,
            environment.fleet_socket,
            hwm_messages=FLEET_HWM_MESSAGES,
            routing_id=identity,
        )
        self._channel: Channel[ToWorker] = Channel(socket, msgspec.msgpack.Decoder(ToWorker))
        self._fleet = FleetClient(
            SnapshotReader(snapshot),
            CounterTable(in_flight, IN_FLIGHT_COLUMNS),
            row,
            self._channel,
            clock=time.monotonic,
        )
        self._channel.on_message(self._fleet.on_message)
        self._nodes = NeuronClient()
        self._responses = ResponseStore(settings.store, clock=time.time)
        self.app: App = HeldBodies(
            cast("App", self._falcon_app(drain, settings, environment.started_at)),
            limit_bytes=settings.held_bodies_bytes,
            max_body_bytes=MAX_BODY_BYTES,
            wait_s=BODY_WAIT_S,
        )

    async def until_usable(self) -> None:
        """Return once requests need not be refused because the fleet actor is starting.

        After `FIRST_SNAPSHOT_S` they are: it may have died.
        """
        await self._fleet.until_known(FIRST_SNAPSHOT_S)

    def _falcon_app(self, drain: Drain, settings: WorkerSettings, started_at: int) -> FalconApp:
        metrics = GatewayMetrics(CollectorRegistry())
        gateway = Gateway(
            fleet=self._fleet,
            nodes=self._nodes,
            metrics=metrics,
            drain=drain,
            clock=time.monotonic,
        )
        embedding = EmbeddingGateway(
            fleet=self._fleet,
            nodes=self._nodes,
            metrics=metrics,
            drain=drain,
            clock=time.monotonic,
        )
        return create_app(
            AppParts(
                gateway=gateway,
                embedding=embedding,
                fleet=self._fleet,
                nodes=self._nodes,
                responses=self._responses,
                drain=drain,
                clock=time.monotonic,
                started_at=started_at,
                drop_billing_line=settings.drop_billing_line,
            )
        )

    def close(self) -> None:
        """Let everything go. Unsent messages to the fleet actor are dropped."""
        self._responses.close()
        self._nodes.close()
        self._channel.close()
        self._context.term()
        for segment in self._segments:
            segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
