"""gunicorn's asgi worker with a drain that the application takes part in.

Loaded by gunicorn by name; see `cortexd.http_server`.
"""

from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from cortexd.worker_app import WorkerApp

LINGER_S = 0.5
"""After the last request, how long connections may take to get their last bytes out."""


class HouseLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Gives what gunicorn has to say to the process's own handlers, in the form of all lines."""

    def setup(self, cfg: Config) -> None:
        """Called by gunicorn."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class DrainingWorker(ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """On SIGTERM: no new work, streams end in time, idle connections delay nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._connections = 0
        self._quiet_since: float | None = None
        super().__init__(*args, **kwargs)

    @property
    def nr_conns(self) -> int:
        """Connections that keep the worker alive; gunicorn counts idle ones as well."""
        if self.alive:
            return self._connections
        app: WorkerApp = self.asgi
        now: float = self.loop.time()
        if app.active:
            self._quiet_since = None
            return self._connections
        if self._quiet_since is None:
            self._quiet_since = now
        return self._connections if now < self._quiet_since + LINGER_S else 0

    @nr_conns.setter
    def nr_conns(self, count: int) -> None:
        self._connections = count

    def handle_exit_signal(self) -> None:
        """Take SIGTERM: begin the drain, and end it before gunicorn would."""
        if self.alive:
            drain = self.asgi.drain
            drain.begin()
            self.loop.call_later(self.cfg.graceful_timeout - DRAIN_MARGIN_S, drain.expire)
        super().handle_exit_signal()


DRAIN_MARGIN_S = 5
"""Between the end of the application's drain and gunicorn's own, which cuts streams dead."""
