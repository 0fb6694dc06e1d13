"""`python -m cortexd.http_server`: gunicorn as a child of `cortex serve`, and its workers."""

import math
import os
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from prometheus_client import multiprocess

from cortex_core.errors import ConfigError
from cortex_core.ipc.counters import CounterTable
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.ipc.parent import die_with_parent
from cortex_core.ipc.segment import Segment
from cortex_core.logs import set_up_logging
from cortex_core.sizes import MIB
from cortexd.child_env import CONFIG_STATUS, ChildEnvironment
from cortexd.config import CortexConfig
from cortexd.config_files import http_workers, read_cortex_config, state_dir
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS
from cortexd.http_worker import DRAIN_MARGIN_S
from cortexd.listening import BACKLOG
from cortexd.responses.store import StoreSettings
from cortexd.worker_app import WorkerApp
from cortexd.worker_parts import WorkerSettings

KEEPALIVE_S = 75
WORKER_TIMEOUT_S = 60
"""A worker whose loop stands still for so long is killed and replaced."""
HANG_DEADLINE_S = 20.0
"""The same of the master. Its workers end with it, and with them what they stream: so not at the
first doubt; but none of them is replaced meanwhile."""


class WorkerRows:
    """Hands out rows of the in-flight table to workers. Lives in gunicorn's master process."""

    def __init__(self, environment: ChildEnvironment) -> None:
        segment = Segment.attach(os.dup(environment.in_flight_fd))
        self._table = CounterTable(segment, IN_FLIGHT_COLUMNS)
        for row in range(self._table.rows):
            self._table.clear_row(row)
        self._free = list(range(self._table.rows))

    def take(self) -> int:
        """Return a row that nobody has."""
        return self._free.pop(0)

    def give_back(self, row: int) -> None:
        """Forget what a worker that is gone had counted."""
        self._table.clear_row(row)
        self._free.append(row)


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's master, which says that it goes on each time it looks after its workers."""

    def __init__(self, server: "HttpServer", liveness: LivenessWriter) -> None:
        self._liveness = liveness
        super().__init__(server)

    def manage_workers(self) -> None:
        """Called by gunicorn once a second at least."""
        self._liveness.enter(Phase.IDLE, HANG_DEADLINE_S)
        super().manage_workers()

    def stop(self, graceful: bool = True) -> None:
        """Called by gunicorn; returns when its workers have ended."""
        self._liveness.enter(Phase.BLOCKED, self.cfg.graceful_timeout + HANG_DEADLINE_S)
        super().stop(graceful)


class HttpServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn with our worker, on the listening socket that the parent opened."""

    def __init__(self, environment: ChildEnvironment, config: CortexConfig) -> None:
        self._environment = environment
        self._config = config.gateway
        self._workers = http_workers(config)
        self._settings = worker_settings(config)
        self._rows = WorkerRows(environment)
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        graceful_s = math.ceil(self._config.drain_timeout_s) + DRAIN_MARGIN_S
        settings: dict[str, Any] = {
            "bind": f"fd://{self._environment.listen_fd}",
            "backlog": BACKLOG,
            "workers": self._workers,
            "worker_class": "cortexd.http_worker.DrainingWorker",
            "worker_tmp_dir": _memory_dir(),
            "asgi_loop": "uvloop",
            "asgi_lifespan": "on",
            # The call of a client that is gone is cancelled at once, and with it all upstream.
            "asgi_disconnect_grace_period": 0,
            "keepalive": KEEPALIVE_S,
            "timeout": WORKER_TIMEOUT_S,
            "graceful_timeout": graceful_s,
            "limit_request_line": 8190,
            "limit_request_field_size": 32768,
            "logger_class": "cortexd.http_worker.HouseLogger",
            "loglevel": "warning",
            "control_socket_disable": True,
            "proc_name": "cortex-http",
            "pre_fork": self._pre_fork,
            "post_fork": self._post_fork,
            "child_exit": self._child_exit,
        }
        for key, value in settings.items():
            self.cfg.set(key, value)

    def run(self) -> None:
        """Serve until SIGTERM."""
        liveness = Segment.attach(os.dup(self._environment.liveness_fd))
        Master(self, LivenessWriter(liveness)).run()

    def load(self) -> WorkerApp:
        """Called by gunicorn, in each worker."""
        return WorkerApp(self._environment, self._settings)

    def _pre_fork(self, _arbiter: Any, worker: Any) -> None:
        worker.in_flight_row = self._rows.take()

    def _post_fork(self, _arbiter: Any, worker: Any) -> None:
        die_with_parent(self._environment.death_fd, worker.ppid)
        self.wsgi().row = worker.in_flight_row

    def _child_exit(self, _arbiter: Any, worker: Any) -> None:
        self._rows.give_back(worker.in_flight_row)
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # no types


def worker_settings(config: CortexConfig) -> WorkerSettings:
    """Return what workers have to know of the configuration."""
    responses = config.responses
    return WorkerSettings(
        StoreSettings(state_dir(config), responses.ttl_s, responses.max_mb * MIB),
        config.gateway.drop_billing_line,
        config.gateway.held_bodies_mb * MIB,
    )


def _memory_dir() -> str | None:
    """Return a folder without a disk under it for workers' heartbeats, if there is one."""
    shared = Path("/dev/shm")  # noqa: S108 - gunicorn unlinks its file there as it makes it
    return str(shared) if os.access(shared, os.W_OK) else None


def main() -> None:
    """Run until SIGTERM, or until the parent is gone."""
    try:
        environment = ChildEnvironment.from_environment()
        die_with_parent(environment.death_fd, environment.parent_pid)
        config = read_cortex_config(environment.config)
    except ConfigError as error:
        print(f"cortex: {error.message}", file=sys.stderr)  # noqa: T201 - before logging is set up
        raise SystemExit(CONFIG_STATUS) from None
    set_up_logging(config.gateway.log_level)
    HttpServer(environment, config).run()


if __name__ == "__main__":
    main()
