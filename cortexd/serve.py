"""`cortex serve`: the parent of the gunicorn master and the fleet actor.

It decides nothing about requests. It owns what must outlive both children: the listening socket,
the fleet snapshot and the in-flight table; it starts them, starts them again, tells systemd, and
ends them in order. When it dies both die (see `cortex_core.ipc.child`).
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from cortex_core.config import Address
from cortex_core.errors import ConfigError, CortexError, Timeout
from cortex_core.ipc.child import DeathPipe, python_command, stop_or_hurry
from cortex_core.ipc.counters import counter_segment_bytes
from cortex_core.ipc.liveness import LIVENESS_SEGMENT_BYTES
from cortex_core.ipc.sdnotify import NOTIFY_VARIABLES, Notifier
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import snapshot_segment_bytes
from cortex_core.ipc.socket_paths import check_socket_path, make_runtime_dir
from cortex_core.logs import kv, set_up_logging
from cortexd.child_env import ADMIN_SOCKET, FLEET_SOCKET, ChildEnvironment
from cortexd.config_files import Configuration, http_workers, read_configuration, runtime_dir
from cortexd.fleet.drained import DRAINED_FILE
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS, SNAPSHOT_BYTES
from cortexd.folder_lock import locked
from cortexd.health_probe import HealthProbe
from cortexd.listening import check_free, listen_on
from cortexd.respawn import Respawned

log = logging.getLogger(__name__)

MIN_IN_FLIGHT_ROWS: Final = 32
"""Room for workers that an operator adds by gunicorn's signals.

Not more than that: each request adds up a column of the table for each replica it could go to.
"""
START_TIMEOUT_S: Final = 60.0
HTTP_GRACE_S: Final = 10.0
"""What the HTTP server gets beyond the drain before it is killed."""
ACTOR_GRACE_S: Final = 5.0
QUICK_GRACE_S: Final = 2.0
METRICS_DIR: Final = "metrics"

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(path: Path) -> int:
    """Run the gateway in the foreground until SIGTERM; return the exit status.

    0: stopped in order. 1: could not start or go on. 2: the configuration is wrong.
    """
    try:
        configuration = read_configuration(path)
        set_up_logging(configuration.cortex.gateway.log_level)
        asyncio.run(Parent(path.absolute(), configuration).run())
    except ConfigError as error:
        sys.stderr.write(f"cortex serve: {error.message}\n")
        return 2
    except CortexError as error:
        sys.stderr.write(f"cortex serve: {error.message}\n")
        return 1
    return 0


class Parent:
    """One life of the gateway."""

    def __init__(self, path: Path, configuration: Configuration) -> None:
        self._path = path
        self._gateway = configuration.cortex.gateway
        self._runtime_dir = runtime_dir(configuration.cortex)
        # A reload has each worker twice, for as long as the old ones still answer.
        self._in_flight_rows = max(MIN_IN_FLIGHT_ROWS, 2 * http_workers(configuration.cortex))
        self._notifier = Notifier.from_env()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Start everything, say so, and end everything once asked to.

        Raises:
            ConfigError: an address or folder cannot be used, or a child says it never can run.
            Timeout: the gateway did not answer within `START_TIMEOUT_S`.
        """
        loop = asyncio.get_running_loop()
        for signum in _STOP_SIGNALS:
            loop.add_signal_handler(signum, self._on_signal)
        async with AsyncExitStack() as stack:
            stack.callback(asyncio.create_task(self._beat()).cancel)
            listener, http, actor = await self._start(stack)
            await self._until_ready(listener, http, actor)
            if not self._stopping.is_set():
                self._notifier.ready()
                address = Address(*listener.getsockname()[:2])
                log.info("gateway ready", extra=kv(listen=address))
                await self._first_of(http, actor, asyncio.create_task(self._stopping.wait()))
            self._notifier.stopping()
            # What still connects is refused at once instead of waiting for nobody.
            listener.close()
            log.info("gateway stops", extra=kv(drain_timeout_s=self._gateway.drain_timeout_s))

    async def _start(self, stack: AsyncExitStack) -> tuple[socket.socket, Respawned, Respawned]:
        """Make what the children share, then the children; `stack` undoes it in reverse."""
        listener = stack.enter_context(listen_on(self._gateway.listen, key="gateway.listen"))
        check_free(self._gateway.metrics_listen, key="gateway.metrics_listen")
        metrics_dir = self._make_folders(stack)
        snapshot = Segment.create("cortex-fleet", snapshot_segment_bytes(SNAPSHOT_BYTES))
        stack.callback(snapshot.close)
        in_flight = Segment.create(
            "cortex-in-flight", counter_segment_bytes(self._in_flight_rows, IN_FLIGHT_COLUMNS)
        )
        stack.callback(in_flight.close)
        actor_alive, http_alive = _liveness_record(stack), _liveness_record(stack)
        death = DeathPipe()
        stack.callback(death.close)
        handed = ChildEnvironment(
            config=self._path,
            runtime_dir=self._runtime_dir,
            metrics_dir=metrics_dir,
            snapshot_fd=snapshot.fd,
            in_flight_fd=in_flight.fd,
            liveness_fd=actor_alive.fd,
            death_fd=death.read_fd,
            parent_pid=os.getpid(),
            listen_fd=listener.fileno(),
            started_at=int(time.time()),
        )
        actor = self._child("fleet actor", "cortexd.fleet_actor", handed, actor_alive)
        stack.push_async_callback(self._stop, actor, ACTOR_GRACE_S, signal.SIGTERM)
        handed = msgspec.structs.replace(handed, liveness_fd=http_alive.fd)
        http = self._child("HTTP server", "cortexd.http_server", handed, http_alive)
        grace_s = self._gateway.drain_timeout_s + HTTP_GRACE_S
        stack.push_async_callback(self._stop, http, grace_s, signal.SIGQUIT)
        actor.start()
        http.start()
        return listener, http, actor

    def _make_folders(self, stack: AsyncExitStack) -> Path:
        for name in (FLEET_SOCKET, ADMIN_SOCKET):
            check_socket_path(self._runtime_dir / name)
        make_runtime_dir(self._runtime_dir)
        other = "another gateway has its sockets there; stop that one, or set gateway.runtime_dir"
        stack.enter_context(locked(self._runtime_dir, otherwise=other))
        self._remove_files()
        stack.callback(self._remove_files)
        folder = self._runtime_dir / METRICS_DIR
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _remove_files(self) -> None:
        """Remove what a fleet actor leaves to the next one, or left because it was killed."""
        for name in (FLEET_SOCKET, ADMIN_SOCKET, DRAINED_FILE):
            (self._runtime_dir / name).unlink(missing_ok=True)

    def _child(
        self, name: str, module: str, handed: ChildEnvironment, liveness: Segment
    ) -> Respawned:
        base = {key: text for key, text in os.environ.items() if key not in NOTIFY_VARIABLES}
        return Respawned(
            name,
            python_command(module),
            environment=handed.to_environment(base),
            descriptors=handed.descriptors(),
            liveness=liveness,
        )

    async def _until_ready(
        self, listener: socket.socket, http: Respawned, actor: Respawned
    ) -> None:
        probe = HealthProbe(listener.getsockname())
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._first_of(http, actor, asyncio.create_task(probe.until_ok()))
        except TimeoutError:
            raise Timeout(
                f"cannot start the gateway: no answer within {START_TIMEOUT_S:g} s"
            ) from None

    async def _first_of(
        self, http: Respawned, actor: Respawned, awaited: asyncio.Task[Any]
    ) -> None:
        """Return when `awaited` is done or we are to stop; raise if a child gave up."""
        stop = asyncio.create_task(self._stopping.wait())
        try:
            ends: set[asyncio.Future[Any]] = {awaited, stop, http.given_up, actor.given_up}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            awaited.cancel()
        for child in (http, actor):
            if child.given_up.done():
                raise child.given_up.result()

    async def _beat(self) -> None:
        """Tell systemd that this loop turns, also while children drain."""
        interval_s = self._notifier.watchdog_interval_s
        while interval_s is not None:
            self._notifier.watchdog()
            await asyncio.sleep(interval_s)

    async def _stop(self, child: Respawned, grace_s: float, quickly: signal.Signals) -> None:
        """End one child; a second signal cuts the wait short, and `quickly` tells the child."""
        await stop_or_hurry(
            child, grace_s, self._hurry, quickly=quickly, quick_grace_s=QUICK_GRACE_S
        )

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


def _liveness_record(stack: AsyncExitStack) -> Segment:
    """Return a new one for a child to write, which `stack` closes."""
    segment = Segment.create("cortex-liveness", LIVENESS_SEGMENT_BYTES)
    stack.callback(segment.close)
    return segment
