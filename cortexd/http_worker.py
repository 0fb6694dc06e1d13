"""gunicorn's asgi worker with a drain that the application takes part in.

Loaded by gunicorn by name; see `cortexd.http_server`.
"""

from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi
from gunicorn.workers.gasgi import ASGIWorker
from gunicorn_h1c import H1CProtocol

from cortex_core.stall_watch import StallWatched
from cortexd.worker_app import WorkerApp

LINGER_S = 0.5
"""After the last request, how long connections may take to get their last bytes out."""


class PatientParser(H1CProtocol):  # type: ignore[misc]  # gunicorn_h1c has no types
    """Keeps what comes behind a whole request until that is answered.

    A client that has its answer sends the next request at once, which can be here before gunicorn
    has turned to it. Of that the parser keeps 64 KiB, where it has more the connection is closed:
    a long prompt over a connection that was used before would fail now and then.
    `PatientProtocol` bounds what is kept here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._early = bytearray()

    @property
    def early_bytes(self) -> int:
        """How much is kept of the next request."""
        return len(self._early)

    def feed(self, data: bytes) -> Any:
        """Called by gunicorn with what was read."""
        if self.is_complete:
            self._early += data
            return None
        return super().feed(data)

    def remaining(self) -> bytes:
        """Called by gunicorn once a request is answered."""
        kept: bytes = super().remaining()
        return kept + bytes(self._early)

    def reset(self) -> None:
        """Called by gunicorn before the next request."""
        super().reset()
        self._early.clear()


class PatientProtocol(StallWatched, ASGIProtocol):  # type: ignore[misc]  # gunicorn has no types
    """Leaves the rest of a request that comes early in the socket, as gunicorn does with bodies.

    Cuts off a client that does not read, which cancels its request as if it had left: gunicorn
    itself waits for it without a bound.
    """

    def _close_transport(self) -> None:
        """Called by gunicorn; the transport sends what it has, and closes then."""
        if not self._closed:
            self._stall_watch.begin(self.transport)
        super()._close_transport()

    def _http1_buffered(self) -> int:
        """Called by gunicorn, which reads no more past 256 KiB."""
        held: int = super()._http1_buffered()
        parser = self._callback_parser
        return held + parser.early_bytes if isinstance(parser, PatientParser) else held


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
        # gunicorn looks for its parser once, and has no setting for another, nor for a protocol.
        ASGIProtocol._check_h1c_protocol_available()  # noqa: SLF001
        ASGIProtocol._h1c_protocol_class = PatientParser  # noqa: SLF001
        gasgi.ASGIProtocol = PatientProtocol
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
