"""ZeroMQ sockets on unix paths: bounded queues, private files, no file left behind.

The listening socket is made here and handed to ZeroMQ by descriptor, so the file has its mode
before anybody can connect and is removed by its owner alone. A file that a killed owner left is
recognised by nobody accepting on it.
"""

import contextlib
import socket as sockets
from pathlib import Path

import zmq

from cortex_core.errors import ConfigError, InternalError, NodeUnavailable
from cortex_core.ipc.socket_paths import check_socket_path

_BACKLOG = 128
_PROBE_TIMEOUT_S = 1.0
_NOBODY = (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)

ZmqSocket = zmq.Socket[bytes]
ZmqContext = zmq.Context[ZmqSocket]


def check_served(path: Path) -> None:
    """Return if a process listens on `path`, be it too busy to accept just now.

    Raises:
        NodeUnavailable: nobody does, or this user may not connect.
    """
    failure = _probe(path)
    if failure is None:
        return
    if isinstance(failure, _NOBODY):
        raise NodeUnavailable(f"cannot reach {path}: is the daemon running?") from failure
    raise NodeUnavailable(f"cannot reach {path}: {failure.strerror}") from failure


def _probe(path: Path) -> OSError | None:
    """Return why `path` cannot be connected to, or None if somebody listens."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (BlockingIOError, TimeoutError):
            # The backlog is full, so there is one.
            return None
        except OSError as ex:
            return ex
    return None


class BoundSocket:
    """A ZeroMQ socket listening on a unix path, and the file that goes with it.

    Attributes:
        socket: the ZeroMQ socket; closed by `close`.
        path: the socket file; `close` removes it, unless another process has replaced it.
    """

    def __init__(self, socket: ZmqSocket, path: Path, inode: int) -> None:
        self.socket = socket
        self.path = path
        self._inode = inode

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close the socket, leaving unsent messages `linger_s`, and remove the file. Idempotent."""
        if not self.socket.closed:
            self.socket.close(linger=round(linger_s * 1000))
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_ino == self._inode:
                    self.path.unlink()


def bind_socket(
    context: ZmqContext, kind: int, path: Path, *, hwm_messages: int, mode: int = 0o600
) -> BoundSocket:
    """Listen on `path`, replacing a file that a killed owner left.

    `kind` is `zmq.ROUTER`, `zmq.DEALER` or another type. At most `hwm_messages` wait for each
    peer in each direction.

    Raises:
        ConfigError: the path is too long, its folder is missing or not writable, or another
            process serves it.
    """
    check_socket_path(path)
    listener = _listen(path, mode)
    try:
        inode = path.stat().st_ino
        socket = _new_socket(context, kind, hwm_messages)
        socket.setsockopt(zmq.USE_FD, listener.fileno())
        socket.bind(f"ipc://{path}")
    except (OSError, zmq.ZMQError) as ex:
        listener.close()
        path.unlink(missing_ok=True)
        raise InternalError(f"cannot serve {path}: {ex}") from ex
    listener.detach()
    return BoundSocket(socket, path, inode)


def connect_socket(
    context: ZmqContext,
    kind: int,
    path: Path,
    *,
    hwm_messages: int,
    routing_id: bytes | None = None,
) -> ZmqSocket:
    """Connect to `path`, now or whenever somebody listens there.

    `routing_id` is the identity under which a ROUTER on the other side sees this socket; without
    one it makes one up. Messages sent before the peer is there wait, up to `hwm_messages`; what
    was handed to a peer that then died is lost, so a sender repeats what is not answered.

    Raises:
        ConfigError: the path is too long.
    """
    check_socket_path(path)
    socket = _new_socket(context, kind, hwm_messages)
    if routing_id is not None:
        socket.setsockopt(zmq.ROUTING_ID, routing_id)
    socket.connect(f"ipc://{path}")
    return socket


def _new_socket(context: ZmqContext, kind: int, hwm_messages: int) -> ZmqSocket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, hwm_messages)
    socket.setsockopt(zmq.RCVHWM, hwm_messages)
    if kind == zmq.ROUTER:
        # Tell the sender when a peer is gone; let a respawned peer take its name over.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return socket


def _listen(path: Path, mode: int) -> sockets.socket:
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        # Nobody can connect before listen(), so the mode is in force first.
        path.chmod(mode)
        listener.listen(_BACKLOG)
    except OSError as ex:
        listener.close()
        raise ConfigError(f"cannot listen on {path}: {ex.strerror}") from ex
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return
    failure = _probe(path)
    if failure is None:
        raise ConfigError(
            f"cannot listen on {path}: another process serves it; stop that one, or choose "
            "another runtime folder"
        )
    if isinstance(failure, _NOBODY):
        path.unlink(missing_ok=True)
