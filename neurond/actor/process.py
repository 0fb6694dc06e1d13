"""An actor process from its hello to its exit status."""

import contextlib
import logging
import os
from pathlib import Path

import msgspec
import zmq

from cortex_core.errors import CortexError, InternalError, Overloaded
from cortex_core.ipc.bell import Bell
from cortex_core.ipc.blocking_channel import BlockingChannel, Wakeups
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.ipc.ring import RingWriter
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.sockets import ZmqContext, connect_socket
from cortex_core.logs import kv, set_up_logging
from neurond.actor.backend import Backend, make_backend
from neurond.actor.commands import CommandReader
from neurond.actor.images import ImageInbox
from neurond.actor.launch import Launch
from neurond.actor.loop import ActorLoop
from neurond.actor.outbox import Outbox
from neurond.protocol import (
    ACTOR_PROTOCOL_VERSION,
    CONTROL_HWM_MESSAGES,
    DATA_HWM_MESSAGES,
    ActorFailed,
    ActorReady,
    Configure,
    ControlCommand,
    DataCommand,
    Hello,
)

FAILED_STATUS = 70
"""EX_SOFTWARE: the actor could not go on."""
_LAST_WORDS_MS = 1000
_CONFIGURE_TIMEOUT_S = 60.0

_log = logging.getLogger(__name__)


def run_actor(launch: Launch) -> int:
    """Serve until told to exit; return the exit status."""
    set_up_logging(launch.log_level)
    context: ZmqContext = zmq.Context()
    control, data = _connect(launch, context)
    status = 0
    try:
        _serve(launch, control, data)
    except CortexError as ex:
        _log.error("actor ends", extra=kv(device=launch.device, cause=ex.message))
        status = _say_why(control, ex)
    except Exception as ex:  # noqa: BLE001 - the last place that can tell the supervisor why
        _log.exception("actor ends", extra=kv(device=launch.device))
        status = _say_why(control, InternalError(f"cannot go on: {type(ex).__name__}: {ex}"))
    # A socket with something to say gets a bounded time for it, then the context closes.
    control.socket.close(linger=_LAST_WORDS_MS)
    data.close()
    context.term()
    return status


def _connect(
    launch: Launch, context: ZmqContext
) -> tuple[BlockingChannel[ControlCommand], BlockingChannel[DataCommand]]:
    control = connect_socket(
        context, zmq.DEALER, Path(launch.control_path), hwm_messages=CONTROL_HWM_MESSAGES
    )
    data = connect_socket(
        context, zmq.DEALER, Path(launch.data_path), hwm_messages=DATA_HWM_MESSAGES
    )
    return (
        BlockingChannel(control, msgspec.msgpack.Decoder(ControlCommand)),
        BlockingChannel(data, msgspec.msgpack.Decoder(DataCommand)),
    )


def _serve(
    launch: Launch, control: BlockingChannel[ControlCommand], data: BlockingChannel[DataCommand]
) -> None:
    liveness = LivenessWriter(Segment.attach(launch.liveness.fd))
    liveness.enter(Phase.STARTING, None)
    ring = RingWriter(Segment.attach(launch.ring.fd))
    prompt_area = Segment.attach(launch.prompt_area.fd)
    hello = Hello(ACTOR_PROTOCOL_VERSION, os.getpid(), launch.boot_id)
    control.send(hello)
    data.send(hello)
    # Imports what it needs, for which the answer to the hello need not be here.
    backend: Backend = make_backend(launch.backend)
    configure = _configuration(control)
    opened = backend.open(configure)
    liveness.enter(Phase.IDLE, launch.deadlines.idle_s)
    control.send(
        ActorReady(
            configure.device,
            opened.attention_backend,
            opened.memory_total_bytes,
            opened.memory_free_bytes,
            opened.kernels,
            opened.kernels_unavailable_reason,
        )
    )
    outbox = Outbox(ring, Bell(launch.bell.fd))
    with contextlib.closing(ImageInbox(launch.images.fd)) as images:
        commands = CommandReader(prompt_area, images)
        loop = ActorLoop(backend, control, data, outbox, commands, liveness, launch.deadlines)
        loop.run()


def _configuration(control: BlockingChannel[ControlCommand]) -> Configure:
    Wakeups((control,)).wait(_CONFIGURE_TIMEOUT_S)
    for command in control.try_recv():
        if isinstance(command, Configure):
            return command
        raise InternalError(f"cannot start: the first command was {type(command).__name__}")
    raise InternalError(f"cannot start: no configuration within {_CONFIGURE_TIMEOUT_S:g} s")


def _say_why(control: BlockingChannel[ControlCommand], error: CortexError) -> int:
    try:
        control.send(ActorFailed(error.info()))
    except Overloaded:
        _log.error("last words not sent: the supervisor does not read", extra=kv(pid=os.getpid()))
    return FAILED_STATUS
