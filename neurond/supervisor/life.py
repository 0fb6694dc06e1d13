"""One life of an actor: its process, and the sockets, bell and segments made for it alone.

Opened for each spawn and closed when the process has been reaped, by the device's handle, on the
supervisor's loop. Nothing here decides anything.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import zmq

from cortex_core.errors import CortexError, InternalError, Overloaded
from cortex_core.ids import BootId, DeviceName, RequestId, new_boot_id
from cortex_core.ipc.bell import Bell
from cortex_core.ipc.channel import Channel
from cortex_core.ipc.child import ChildProcess, DeathPipe, ExitStatus
from cortex_core.ipc.liveness import LIVENESS_SEGMENT_BYTES, LivenessReader
from cortex_core.ipc.parent import STACK_DUMP_SIGNAL
from cortex_core.ipc.ring import RingReader
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.sockets import BoundSocket, ZmqContext, bind_socket, check_served
from cortex_core.logs import LEVELS
from cortex_core.neuron_api import DeviceInfo
from neurond.actor.launch import Launch, PassedFd, PhaseDeadlines
from neurond.protocol import (
    CONTROL_HWM_MESSAGES,
    DATA_HWM_MESSAGES,
    ControlNotice,
    Hello,
)
from neurond.supervisor.settings import SupervisorSettings
from neurond.supervisor.spawn import ActorProcess

_BACKENDS = {
    "cpu": "neurond.actor.cpu_backend:CpuBackend",
    "cuda": "neurond.actor.torch_backend:TorchBackend",
}
_ALLOCATOR_VARIABLE = "PYTORCH_CUDA_ALLOC_CONF"
"""Before `PYTORCH_ALLOC_CONF`, which is that of all kinds of devices, where both are set."""
_CONTROL_SUFFIX = ".control.sock"
_DATA_SUFFIX = ".data.sock"


class ActorLife:
    """A running actor process and everything that joins it to this one.

    Attributes:
        boot_id: names this life.
        prompt_area: where prompts are written for the actor.
        ring: where its tokens are read.
        liveness: what it says it is doing.
        child: the process; `child.exited` resolves when it has been reaped.
    """

    def __init__(
        self,
        device: DeviceInfo,
        settings: SupervisorSettings,
        context: ZmqContext,
        death: DeathPipe,
        threads: int,
    ) -> None:
        """Make segments and sockets and start the process.

        Raises:
            CortexError: one of them cannot be made, as where descriptors are short; nothing is
                left of the others.
        """
        self.boot_id: BootId = new_boot_id()
        with _system_errors(device.id), contextlib.ExitStack() as stack:
            segments = [
                stack.enter_context(contextlib.closing(Segment.create(f"neuron-{what}", size)))
                for what, size in (
                    ("prompts", settings.prompt_area_bytes),
                    ("ring", settings.ring_bytes),
                    ("liveness", LIVENESS_SEGMENT_BYTES),
                )
            ]
            self.prompt_area, ring, liveness = segments
            self.ring = RingReader(ring)
            self._bell = stack.enter_context(contextlib.closing(Bell()))
            self.liveness = LivenessReader(liveness)
            control_path, data_path = socket_paths(settings.runtime_dir, device.id, self.boot_id)
            control = _bind(context, control_path, CONTROL_HWM_MESSAGES, stack)
            data = _bind(context, data_path, DATA_HWM_MESSAGES, stack)
            self._control: Channel[ControlNotice] = Channel(
                control, msgspec.msgpack.Decoder(ControlNotice)
            )
            stack.callback(self._control.close)
            self._data: Channel[Hello] = Channel(data, msgspec.msgpack.Decoder(Hello))
            stack.callback(self._data.close)
            self._images, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(self._images)
            stack.enter_context(theirs)
            self._images.setblocking(False)
            self._process = ActorProcess(
                Launch(
                    device=device.id,
                    boot_id=self.boot_id,
                    parent_pid=os.getpid(),
                    death=PassedFd(death.read_fd),
                    prompt_area=PassedFd(self.prompt_area.fd),
                    ring=PassedFd(ring.fd),
                    bell=PassedFd(self._bell.fd),
                    liveness=PassedFd(liveness.fd),
                    images=PassedFd(theirs.fileno()),
                    control_path=str(control.path),
                    data_path=str(data.path),
                    backend=settings.backend or _BACKENDS[device.kind],
                    deadlines=_deadlines(settings),
                    environment=_environment(device, threads),
                    log_level=_log_level(),
                )
            )
            theirs.close()
            self.child = _watched(self._process)
            self._owned = stack.pop_all()

    def on_notice(self, handler: Callable[[ControlNotice], None]) -> None:
        """Call `handler` with everything the actor says on its two sockets, in order on each."""
        self._control.on_message(handler)
        self._data.on_message(handler)

    def on_bell(self, handler: Callable[[], None]) -> None:
        """Call `handler` whenever there is more on the ring."""

        def answer() -> None:
            self._bell.answer()
            handler()

        loop = asyncio.get_running_loop()
        loop.add_reader(self._bell.fd, answer)
        self._owned.callback(loop.remove_reader, self._bell.fd)

    def on_exit(self, handler: Callable[[ExitStatus], None]) -> None:
        """Call `handler` when the process has been reaped."""
        self.child.exited.add_done_callback(lambda exited: handler(exited.result()))

    def send_control(self, command: msgspec.Struct) -> None:
        """Raises Overloaded when the actor has left too much unread."""
        self._control.send(command)

    def send_data(self, command: msgspec.Struct) -> None:
        """Raises Overloaded when the actor has left too much unread."""
        self._data.send(command)

    def send_images(self, request_id: RequestId, fds: Sequence[int]) -> None:
        """Raises Overloaded when the actor has left too much unread."""
        try:
            socket.send_fds(self._images, [request_id.encode()], fds)
        except OSError as ex:  # also where descriptors are short
            raise Overloaded(
                f"cannot pass on the images: {ex.strerror}; retry later", retry_after_s=1.0
            ) from ex

    def dump_stacks(self) -> None:
        """Have the process write the stacks of its threads to stderr, if it still can."""
        self.child.send_signal(STACK_DUMP_SIGNAL)

    def close(self) -> None:
        """Remove sockets and segments of a process that has been reaped."""
        self._owned.close()
        self._process.close()


def socket_paths(runtime_dir: Path, device: DeviceName, boot_id: BootId) -> tuple[Path, Path]:
    """Return where the control and the data socket of one life of an actor lie."""
    name = f"{device}-{boot_id}"
    return runtime_dir / f"{name}{_CONTROL_SUFFIX}", runtime_dir / f"{name}{_DATA_SUFFIX}"


def sweep_sockets(runtime_dir: Path) -> None:
    """Remove the sockets that the actors of a killed supervisor left in its runtime folder."""
    for suffix in (_CONTROL_SUFFIX, _DATA_SUFFIX):
        for path in runtime_dir.glob(f"*{suffix}"):
            try:
                check_served(path)
            except CortexError:
                path.unlink(missing_ok=True)


def _watched(process: ActorProcess) -> ChildProcess:
    try:
        return ChildProcess(process)
    except BaseException:
        process.discard()  # without a watcher it would be nobody's
        raise


@contextlib.contextmanager
def _system_errors(device: DeviceName) -> Iterator[None]:
    """Turn what the system refuses into an error of ours."""
    try:
        yield
    except OSError as ex:
        raise InternalError(f"cannot start the process of device {device}: {ex.strerror}") from ex


def _bind(
    context: ZmqContext, path: Path, hwm_messages: int, stack: contextlib.ExitStack
) -> BoundSocket:
    bound = bind_socket(context, zmq.DEALER, path, hwm_messages=hwm_messages)
    stack.callback(bound.close)
    return bound


def _log_level() -> str:
    level = logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower()
    return level if level in LEVELS else "info"


def _deadlines(settings: SupervisorSettings) -> PhaseDeadlines:
    return PhaseDeadlines(
        idle_s=settings.idle_deadline_s,
        step_s=settings.step_deadline_s,
        blocked_s=settings.blocked_deadline_s,
    )


def _environment(device: DeviceInfo, threads: int) -> dict[str, str]:
    visible = (device.uuid or str(device.index)) if device.kind == "cuda" else ""
    return {
        # The actor must see no device but its own. By UUID: CUDA leaves out devices that it cannot
        # use, and its indices then differ from NVML's.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": visible,
        # Models come and go in one process, with caches of any size: pages of memory are mapped
        # where they are wanted, and what is free is not left in pieces.
        _ALLOCATOR_VARIABLE: os.environ.get(_ALLOCATOR_VARIABLE)
        or os.environ.get("PYTORCH_ALLOC_CONF")
        or "expandable_segments:True",
        # Not OMP_WAIT_POLICY=passive: OpenMP's idle threads spin for milliseconds, but a model that
        # torch computes takes 1.3 to 2.1 times as long where they sleep between its operations, and
        # packing one for the CPU kernels takes as long either way.
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
