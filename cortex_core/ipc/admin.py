"""The admin socket of a daemon: verbs with arguments, over ZeroMQ on a unix path, as msgpack maps.

| direction | frame |
|---|---|
| to the daemon | `{verb, id, args}` |
| back, any number of times | `{id, progress}` |
| back, once, last | `{id, ok: true, result}` or `{id, ok: false, error}` |

`id` is the client's, and stands in every frame of the answer. Who may open the socket file may do
everything: the file's mode is the permission.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import zmq

from cortex_core.config.walker import Mismatch, check, convert, nearest_key
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InternalError,
    InvalidRequest,
    NodeUnavailable,
    NotFound,
    Overloaded,
    ShuttingDown,
    Timeout,
    error_from_info,
)
from cortex_core.ipc.blocking_channel import decode_message
from cortex_core.ipc.channel import RouterChannel
from cortex_core.ipc.sockets import ZmqContext, bind_socket, check_served, connect_socket
from cortex_core.logs import kv

_log = logging.getLogger(__name__)

MAX_CALLS = 32
"""Calls that a server works on at the same time; more are refused with `Overloaded`."""

_HWM_MESSAGES = 1000
_PROBE_INTERVAL_S = 1.0
_LAST_WORDS_S = 0.5

Args = dict[str, Any]
ProgressSink = Callable[[object], None]
Handler = Callable[[Args, ProgressSink], Awaitable[object]]
"""Runs a verb. What it returns or reports must be what msgspec can encode, structs included."""

S = TypeVar("S", bound=msgspec.Struct)


class AdminRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    verb: str
    id: int
    args: Args = {}


class AdminReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """`ok` is None in a frame of progress; that frame is not the last."""

    id: int
    ok: bool | None = None
    result: Any = None
    error: ErrorInfo | None = None
    progress: Any = None


def typed(kind: type[S], run: Callable[[S, ProgressSink], Awaitable[object]]) -> Handler:
    """Return a handler that takes its arguments as a struct; wrong ones are named to the caller."""

    async def handle(args: Args, progress: ProgressSink) -> object:
        try:
            check(args, kind, "")
        except Mismatch as ex:
            raise InvalidRequest(f"cannot read arguments: {ex}", param=ex.path or None) from ex
        return await run(convert(args, kind), progress)

    return handle


class AdminServer:
    """Serves verbs on a unix path, on the running loop, which is also where handlers run.

    Owns the socket and its file; `close` gives them back and cancels calls that still run.

    Raises:
        ConfigError: the path cannot be served, see `cortex_core.ipc.sockets.bind_socket`.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        *,
        context: ZmqContext,
        mode: int = 0o660,
    ) -> None:
        self._handlers = dict(handlers)
        self._calls: set[asyncio.Task[None]] = set()
        bound = bind_socket(context, zmq.ROUTER, path, hwm_messages=_HWM_MESSAGES, mode=mode)
        self._channel = RouterChannel(bound, msgspec.msgpack.Decoder(AdminRequest))
        self._channel.on_message(self._on_request)

    async def close(self) -> None:
        """Cancel running calls, tell their clients, and stop serving. Idempotent."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._channel.close(linger_s=_LAST_WORDS_S)

    def _on_request(self, message: tuple[bytes, AdminRequest]) -> None:
        peer, request = message
        if len(self._calls) >= MAX_CALLS:
            busy = Overloaded(f"cannot run {request.verb}: {MAX_CALLS} calls are running")
            self._reply(peer, AdminReply(request.id, ok=False, error=busy.info()))
            return
        call = asyncio.create_task(self._run(peer, request))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _run(self, peer: bytes, request: AdminRequest) -> None:
        def progress(value: object) -> None:
            self._reply(peer, AdminReply(request.id, progress=value))

        error: CortexError
        try:
            handler = self._handlers.get(request.verb)
            if handler is None:
                raise NotFound(self._unknown(request.verb), param="verb")
            result = await handler(request.args, progress)
            self._reply(peer, AdminReply(request.id, ok=True, result=result))
            return
        except CortexError as ex:
            error = ex
        except asyncio.CancelledError:
            error = ShuttingDown(f"cannot finish {request.verb}: the daemon stops")
        except Exception as ex:  # noqa: BLE001 - a handler's defect is the caller's answer
            _log.exception("admin call failed")
            error = InternalError(f"cannot run {request.verb}: {type(ex).__name__}: {ex}")
        self._reply(peer, AdminReply(request.id, ok=False, error=error.info()))

    def _reply(self, peer: bytes, reply: AdminReply) -> None:
        try:
            self._channel.send(peer, reply)
        except (NodeUnavailable, Overloaded) as ex:
            # The client went away or stopped reading; nobody else waits for this frame.
            _log.debug("admin reply dropped", extra=kv(cause=ex.message))

    def _unknown(self, verb: str) -> str:
        near = nearest_key(verb, self._handlers, cutoff=0.6)
        hint = f"did you mean '{near}'? " if near else ""
        known = ", ".join(sorted(self._handlers))
        return f"cannot run {verb!r}: unknown verb; {hint}known are {known}"


class AdminClient:
    """Calls verbs of a daemon, for a command line: synchronous, one call at a time.

    Use as a context manager, or `close` it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._context: ZmqContext = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._ids = itertools.count(1)
        self._decoder = msgspec.msgpack.Decoder(AdminReply)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; an answer still to come is lost. Idempotent."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None
        self._context.term()

    def call(
        self,
        verb: str,
        /,
        *,
        silence_s: float = 30.0,
        on_progress: Callable[[Any], None] | None = None,
        **args: object,
    ) -> Any:
        """Run `verb` and return its result as plain data.

        `silence_s` is the longest silence: every frame of progress begins it anew.

        Raises:
            NodeUnavailable: nobody serves the path, or the daemon went away meanwhile.
            Timeout: nothing came for `silence_s`; the daemon goes on with the call.
            ProtocolError: the answer cannot be read, such as that of another version.
            CortexError: what the daemon answered.
        """
        check_served(self._path)
        if self._socket is None:
            self._socket = connect_socket(
                self._context, zmq.DEALER, self._path, hwm_messages=_HWM_MESSAGES
            )
        request = AdminRequest(verb, next(self._ids), args)
        self._socket.send(msgspec.msgpack.encode(request))
        while True:
            reply = self._next_reply(self._socket, request, silence_s)
            if reply.ok is None:
                if on_progress is not None:
                    on_progress(reply.progress)
            elif reply.error is not None:
                raise error_from_info(reply.error)
            else:
                return reply.result

    def _next_reply(
        self, socket: zmq.Socket[bytes], request: AdminRequest, silence_s: float
    ) -> AdminReply:
        left_s = silence_s
        while left_s > 0:
            slice_s = min(left_s, _PROBE_INTERVAL_S)
            if not socket.poll(round(slice_s * 1000) or 1):
                left_s -= slice_s
                # ZeroMQ reconnects in silence; only the path tells that the daemon is gone.
                check_served(self._path)
                continue
            reply = decode_message(self._decoder, socket.recv_multipart(), 1)
            if reply.id == request.id:
                return reply
        raise Timeout(
            f"cannot finish {request.verb}: {self._path} gave no answer for {silence_s:g} s"
        )
