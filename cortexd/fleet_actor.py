"""The fleet actor: one process that watches the nodes and decides about memory and queues.

Started by `cortex serve` as `python -m cortexd.fleet_actor`; dies with it. Everything here runs on
one event loop. What it knows it reads again from the nodes when it starts, so that killing it
loses nothing: HTTP workers keep routing to what is ready, and put their open requests again.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import uvloop
import zmq

from cortex_core.config.address import parse_address
from cortex_core.errors import ConfigError, CortexError
from cortex_core.ids import NodeName
from cortex_core.ipc.admin import AdminServer
from cortex_core.ipc.channel import RouterChannel
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.ipc.parent import die_with_parent, write_stacks_on_signal
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader
from cortex_core.ipc.sockets import ZmqContext, bind_socket
from cortex_core.logs import kv, set_up_logging
from cortexd.admin.verbs import AdminVerbs
from cortexd.child_env import ADMIN_SOCKET, CONFIG_STATUS, ChildEnvironment
from cortexd.config_files import Configuration, read_configuration
from cortexd.fleet.board import FleetBoard
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.columns import ColumnTable
from cortexd.fleet.conductor import Conductor
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.drained import DrainedNodes
from cortexd.fleet.events import Cordoned
from cortexd.fleet.eviction import EvictionPolicy
from cortexd.fleet.layout import MAX_REPLICAS
from cortexd.fleet.metrics import FleetMetrics, gauges_of, render
from cortexd.fleet.metrics_server import MetricsServer
from cortexd.fleet.protocol import ToActor
from cortexd.fleet.state import FleetState
from cortexd.neuron_client import ClientTimeouts, NeuronClient

log = logging.getLogger(__name__)

HANG_DEADLINE_S = 10.0
"""Without a tick for so long the actor counts as hung, and its parent replaces it.

Far above what a busy host can hold it up, and below the silence after which waiting requests fail.
"""
HWM_MESSAGES = 10_000
"""Messages that may wait for one worker; one that does not read loses them, and asks again."""


def make_dispatcher(configuration: Configuration, board: FleetBoard, now: float) -> Dispatcher:
    """Return the deciding half of the actor, knowing of the nodes nothing but their names."""
    config = configuration.cortex
    state = FleetState(
        {NodeName(neuron.name): neuron.endpoint for neuron in config.neurons},
        columns=ColumnTable(MAX_REPLICAS, board.left_behind()),
        unhealthy_after=config.fleet.unhealthy_after,
        now=now,
    )
    return Dispatcher(
        state,
        Catalogue(configuration.models, config.admission),
        EvictionPolicy(config.eviction.strategy),
        config.fleet,
        collate_s=config.eviction.collate_s,
        defrag_after_cycles=config.eviction.defrag_after_cycles,
        default_scheme=config.gateway.default_scheme,
    )


async def serve(environment: ChildEnvironment, configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT, then close what was opened.

    Raises:
        ConfigError: a socket or port cannot be listened on.
    """
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    async with AsyncExitStack() as stack:
        await _start(environment, configuration, stack)
        await stopping.wait()


async def _start(
    environment: ChildEnvironment, configuration: Configuration, stack: AsyncExitStack
) -> None:
    """Start every part; `stack` stops them in the other order."""
    config = configuration.cortex
    snapshot = Segment.attach(os.dup(environment.snapshot_fd))
    in_flight = Segment.attach(os.dup(environment.in_flight_fd))
    stack.callback(snapshot.close)
    stack.callback(in_flight.close)
    liveness = Segment.attach(os.dup(environment.liveness_fd))
    stack.callback(liveness.close)
    board = FleetBoard(snapshot, in_flight)
    now = time.monotonic()
    dispatcher = make_dispatcher(configuration, board, now)
    drained = DrainedNodes(environment.runtime_dir)
    for name in drained.read() & dispatcher.state.nodes.keys():
        dispatcher.state.apply(Cordoned(name, on=True), now)
    client = NeuronClient(timeouts=_timeouts(configuration))
    stack.callback(client.close)
    context: ZmqContext = zmq.Context()
    stack.callback(context.term)
    bound = bind_socket(context, zmq.ROUTER, environment.fleet_socket, hwm_messages=HWM_MESSAGES)
    workers: RouterChannel[ToActor] = RouterChannel(bound, msgspec.msgpack.Decoder(ToActor))
    stack.callback(workers.close)
    conductor = Conductor(
        dispatcher,
        board,
        client,
        config.fleet,
        send=workers.send,
        metrics=FleetMetrics(),
        clock=time.monotonic,
        alive=partial(LivenessWriter(liveness).enter, Phase.IDLE, HANG_DEADLINE_S),
    )
    verbs = AdminVerbs(conductor, drained, SnapshotReader(snapshot).version)
    admin_path = environment.runtime_dir / ADMIN_SOCKET
    admin = AdminServer(admin_path, verbs.handlers(), context=context)
    stack.push_async_callback(admin.close)
    await _serve_metrics(environment.metrics_dir, configuration, conductor, stack)
    workers.on_message(conductor.on_message)
    conductor.start()
    stack.push_async_callback(conductor.stop)
    log.info("fleet actor runs", extra=kv(nodes=len(config.neurons)))


async def _serve_metrics(
    folder: Path, configuration: Configuration, conductor: Conductor, stack: AsyncExitStack
) -> None:
    async def metrics() -> tuple[int, str, bytes]:
        conductor.look()
        text = await asyncio.to_thread(render, folder, gauges_of(conductor.dispatcher))
        return 200, "text/plain; version=0.0.4; charset=utf-8", text

    async def health() -> tuple[int, str, bytes]:
        up = sum(node.healthy for node in conductor.dispatcher.state.nodes.values())
        body = {"status": "ok" if up else "no node", "nodes_up": up}
        return 200 if up else 503, "application/json", msgspec.json.encode(body)

    server = MetricsServer({"/metrics": metrics, "/health": health})
    stack.push_async_callback(server.stop)
    listen = parse_address(
        configuration.cortex.gateway.metrics_listen, key="gateway.metrics_listen"
    )
    await server.start(listen)


def _timeouts(configuration: Configuration) -> ClientTimeouts:
    fleet = configuration.cortex.fleet
    return ClientTimeouts(poll_s=fleet.poll_timeout_s, load_s=fleet.load_timeout_s)


def main() -> int:
    """Run as a child of `cortex serve`; return the exit status."""
    try:
        environment = ChildEnvironment.from_environment()
        die_with_parent(environment.death_fd, environment.parent_pid)
        write_stacks_on_signal()
        configuration = read_configuration(environment.config)
        set_up_logging(configuration.cortex.gateway.log_level)
        uvloop.run(serve(environment, configuration))
    except ConfigError as ex:
        sys.stderr.write(f"fleet actor: {ex.message}\n")
        return CONFIG_STATUS
    except CortexError as ex:
        # It may be over by the next start, which the parent sees to.
        sys.stderr.write(f"fleet actor: {ex.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
