"""The daemon: puts the node together, serves until SIGTERM, drains, and leaves nothing behind."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cortex_core.config.address import Address
from cortex_core.ipc.sdnotify import NOTIFY_VARIABLES, Notifier
from cortex_core.ipc.socket_paths import make_runtime_dir
from cortex_core.logs import kv
from neurond.config import NeuronConfig
from neurond.devices import Devices
from neurond.listening import listen
from neurond.profiles import Profiles
from neurond.sources.library import Library
from neurond.sources.store import ModelStore
from neurond.state_dir import make_state_dir
from neurond.supervisor.settings import SupervisorSettings
from neurond.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from neurond.front import Front

STATUS_INTERVAL_S: Final = 1.0

_log = logging.getLogger(__name__)


async def serve(config: NeuronConfig, *, settings: SupervisorSettings | None = None) -> None:
    """Run the node until SIGTERM or SIGINT, then drain and end. A second signal ends the drain.

    Must run in the main thread; actors and fetches die with it.

    Args:
        config: what `neuron.toml` says.
        settings: of the supervisor, where a test needs others than follow from `config`.

    Raises:
        ConfigError: the node cannot start as it is configured, for example a port in use.
    """
    notifier = Notifier.from_env()
    for name in NOTIFY_VARIABLES:
        os.environ.pop(name, None)
    signals = _Signals()
    bound = listen(Address(config.listen, config.port))
    with contextlib.closing(bound):
        async with _running(config, settings or supervisor_settings(config), bound) as parts:
            supervisor, front, library = parts
            address = Address(config.listen, bound.getsockname()[1])
            _log.info("listening", extra=kv(address=address, boot_id=supervisor.boot_id))
            notifier.ready()
            loads = [front.node.completed(request) for request in config.default_loads()]
            activation = asyncio.create_task(supervisor.activate(loads))
            renewal = asyncio.create_task(library.renew())
            reporter = asyncio.create_task(_report(notifier, supervisor))
            await signals.first.wait()
            notifier.stopping()
            await _drain(supervisor, signals, config.drain_timeout_s)
            activation.cancel()
            renewal.cancel()
            await supervisor.stop()  # before the server: whoever waits for a load is still told
            await front.close()
            reporter.cancel()
            await asyncio.gather(activation, renewal, reporter, return_exceptions=True)
    _log.info("stopped")


def supervisor_settings(config: NeuronConfig) -> SupervisorSettings:
    """Return what the supervisor is to know of the configuration."""
    return SupervisorSettings(
        runtime_dir=config.runtime_folder(),
        threads=config.threads,
        max_requests=config.limits.max_requests,
    )


@contextlib.asynccontextmanager
async def _running(
    config: NeuronConfig, settings: SupervisorSettings, bound: socket.socket
) -> AsyncIterator[tuple[Supervisor, "Front", Library]]:
    """Start all parts, actors first; at the end no process, socket or segment is left."""
    state_dir = Path(config.state_dir)
    make_state_dir(state_dir)
    make_runtime_dir(settings.runtime_dir)
    library = Library(ModelStore(state_dir), state_dir, config.sources)
    profiles = Profiles(config.profiles())
    devices = Devices.discover(config.device_names())
    supervisor = Supervisor(settings, library, devices, profiles.of)
    await supervisor.start()
    try:
        # Actors take as long to import what they need as this process takes for the rest.
        from neurond.front import Front

        front = Front(config, supervisor, library, profiles, settings.runtime_dir, bound)
        try:
            yield supervisor, front, library
        finally:
            await front.close()
    finally:
        await supervisor.stop()


class _Signals:
    """Signals to end as events: the first one drains, the second one ends the drain."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _drain(supervisor: Supervisor, signals: _Signals, timeout_s: float) -> None:
    _log.info("draining", extra=kv(timeout_s=timeout_s))
    draining = asyncio.create_task(supervisor.drain(timeout_s))
    impatient = asyncio.create_task(signals.second.wait())
    await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    draining.cancel()
    await asyncio.gather(draining, impatient, return_exceptions=True)


async def _report(notifier: Notifier, supervisor: Supervisor) -> None:
    """Tell systemd that the loop turns, and what the node is at."""
    interval_s = min(notifier.watchdog_interval_s or STATUS_INTERVAL_S, STATUS_INTERVAL_S)
    shown = ""
    while True:
        notifier.watchdog()
        status = status_line(supervisor)
        if status != shown:
            shown = status
            notifier.status(status)
        await _pause(interval_s)


async def _pause(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()


def status_line(supervisor: Supervisor) -> str:
    """Return the node's state in one line for people."""
    if supervisor.draining:
        return "draining"
    models = supervisor.models_asked_for()
    loading = next((model for model in models if model.loading is not None), None)
    if loading is not None and loading.loading is not None:
        share = loading.loading.progress
        percent = "" if share is None else f" {share:.0%}"
        return f"{loading.loading.stage} {loading.id}{percent}"
    ready = [model.id for model in models if model.status == "ready"]
    return f"ready: {', '.join(ready)}" if ready else "no model in memory"
