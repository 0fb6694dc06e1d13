"""One device's actor over all its lives: carries out what `ActorLifecycle` decides.

Lives on the supervisor's loop, one for each device. It turns what happens to the process and what
the process says into events of the lifecycle, hands tokens to `InFlight`, and tells its owner what
concerns models.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol, assert_never

from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    Overloaded,
    ProtocolError,
    ShuttingDown,
    Timeout,
    error_from_info,
)
from cortex_core.ids import DeviceName, ModelId
from cortex_core.ipc.child import DeathPipe, ExitStatus
from cortex_core.ipc.liveness import HangWatch
from cortex_core.ipc.sockets import ZmqContext
from cortex_core.logs import kv
from cortex_core.neuron_api import DeviceInfo, DeviceState
from neurond import protocol
from neurond.lifecycle import actor as lives
from neurond.supervisor.inflight import InFlight
from neurond.supervisor.jobs import EmbedJob, EngineJob
from neurond.supervisor.life import ActorLife
from neurond.supervisor.pings import Pings
from neurond.supervisor.settings import SupervisorSettings
from neurond.supervisor.streams import TokenStream

_STACK_DUMP_S = 0.2
"""Time that a hung actor gets to write its stacks before it is killed."""
_LAST_WORDS_S = 0.1
_SPAWN_FAILED_STATUS = 71
"""EX_OSERR: stands for the exit status of a process that could not be started."""

_log = logging.getLogger(__name__)


class DeviceOwner(Protocol):
    """Who is told about a device; called on the loop, must not raise."""

    def device_changed(self) -> None: ...

    def device_ready(self, device: DeviceName) -> None: ...

    def device_died(self, device: DeviceName, error: CortexError, *, asked_for: bool) -> None: ...

    def model_notice(self, notice: protocol.ModelNotice) -> None: ...

    def request_ended(self, model_id: ModelId) -> None: ...


class DeviceActor:
    """A device and the process that has it now, if there is one.

    Attributes:
        info: the device as discovery found it.
        opened: what the actor said of the device; None until it was ready once.
    """

    def __init__(
        self,
        info: DeviceInfo,
        settings: SupervisorSettings,
        context: ZmqContext,
        death: DeathPipe,
        owner: DeviceOwner,
        *,
        threads: int,
    ) -> None:
        self.info = info
        self.opened: protocol.ActorReady | None = None
        self._settings = settings
        self._context = context
        self._death = death
        self._owner = owner
        self._threads = threads
        self._lifecycle = lives.ActorLifecycle(
            info.id,
            protocol.ACTOR_PROTOCOL_VERSION,
            lives.ActorTiming(
                handshake_s=settings.handshake_s,
                stop_grace_s=settings.stop_grace_s,
                stable_s=settings.stable_s,
                backoff=self._backoff,
            ),
        )
        self._life: ActorLife | None = None
        self._in_flight: InFlight | None = None
        self._hellos = 0
        self._hang_watch = HangWatch()
        self._pings = Pings()
        self._stopped = asyncio.get_running_loop().create_future()

    @property
    def state(self) -> DeviceState:
        return self._lifecycle.device_state

    @property
    def attention_backend(self) -> str | None:
        """What the actor picked; None until it was ready once."""
        return self.opened.attention_backend if self.opened else None

    @property
    def has_kernels(self) -> bool:
        """Whether there are CPU kernels for it; taken for granted until it was ready once."""
        return self.opened is None or self.opened.kernels is not None

    @property
    def restarts(self) -> int:
        return self._lifecycle.restarts

    @property
    def pid(self) -> int | None:
        """Process id of the life that is on, if one is."""
        return self._life.child.pid if self._life else None

    @property
    def failure(self) -> CortexError:
        """What to tell someone who needs this device while it is not ready."""
        error = self._lifecycle.last_error
        if error is not None:
            return error_from_info(error)
        return DeviceFailed(f"cannot use device {self.info.id}: it is starting", retry_after_s=1.0)

    def num_in_flight(self) -> int:
        return len(self._in_flight) if self._in_flight else 0

    def counts(self, model_id: ModelId) -> tuple[int, int]:
        """Return running and waiting requests of a model."""
        return self._in_flight.counts(model_id) if self._in_flight else (0, 0)

    def start(self) -> None:
        """Spawn the first life. Main thread, running loop."""
        self._apply(self._lifecycle.start(time.monotonic()))

    async def stop(self) -> None:
        """End the process and return when it has been reaped and nothing of it is left.

        Needs `tick` to be called meanwhile: a process that does not leave by itself is killed.
        """
        if self._in_flight is not None:
            self._in_flight.fail_all(ShuttingDown("cannot go on: the node is shutting down"))
        self._apply(self._lifecycle.stop(time.monotonic()))
        await asyncio.shield(self._stopped)

    def submit(self, job: EngineJob | EmbedJob) -> TokenStream:
        """Start a request.

        Raises:
            DeviceFailed: the device is not ready.
            QueueFull: it has as many requests as it may have.
            Overloaded: the prompt area or the actor's socket is full.
        """
        if self._in_flight is None or self.state != "ready":
            raise self.failure
        return self._in_flight.submit(job)

    def cancel_all(self, error: CortexError, model_id: ModelId | None = None) -> None:
        """Fail every stream, of one model if named, and have the engine drop the requests."""
        if self._in_flight is not None:
            self._in_flight.cancel_all(error, model_id)

    async def ping(self, timeout_s: float) -> float:
        """Return the seconds that a control message to the actor and back takes.

        Raises:
            DeviceFailed: the device is not ready, or dies meanwhile.
            Timeout: there is no answer in time.
        """
        if self.state != "ready":
            raise self.failure
        began_s = time.monotonic()
        number, pong = self._pings.begin()
        self.send_control(protocol.Ping(number))
        try:
            async with asyncio.timeout(timeout_s):
                await pong
        except TimeoutError:
            raise Timeout(f"cannot ping {self.info.id}: no answer in {timeout_s:g} s") from None
        finally:
            self._pings.end(number)
        return time.monotonic() - began_s

    def send_control(self, command: protocol.Command) -> None:
        """Send a control command; an actor that leaves thousands of them unread is killed."""
        if self._life is None:
            return
        try:
            self._life.send_control(command)
        except Overloaded:
            self.declare_hung("it reads no control messages")

    def send_data(self, command: protocol.Command) -> None:
        """Send work.

        Raises:
            DeviceFailed: there is no actor.
            Overloaded: the actor has too much of it unread.
        """
        if self._life is None:
            raise self.failure
        self._life.send_data(command)

    def restart(self) -> None:
        """Let the actor go in order and start another; nothing happens unless it is ready."""
        self._apply(self._lifecycle.restart(time.monotonic()))

    def declare_hung(self, reason: str) -> None:
        """Kill the actor and start another."""
        self._apply(self._lifecycle.hung(reason))

    def tick(self, now: float) -> None:
        """Look at deadlines; called every `watch_interval_s`."""
        reason = self._hang_reason(now)
        if reason is not None:
            self.declare_hung(reason)
        self._apply(self._lifecycle.tick(now))
        if self._in_flight is not None:
            self._in_flight.tick(now)

    def _hang_reason(self, now: float) -> str | None:
        try:
            record = self._life.liveness.read() if self._life else None
        except CortexError as ex:
            # The watch must outlive an actor that has written over its own record.
            return ex.message
        return self._hang_watch.look(record, now)

    def _apply(self, effects: Sequence[lives.ActorEffect]) -> None:
        if effects:
            self._owner.device_changed()
        for effect in effects:
            match effect:
                case lives.Spawn():
                    self._spawn()
                case lives.SendConfigure():
                    self.send_control(protocol.Configure(self.info.id, self._threads))
                case lives.BecameReady():
                    _log.info("device ready", extra=kv(device=self.info.id, pid=self.pid))
                    self._owner.device_ready(self.info.id)
                case lives.SendShutdown():
                    self.send_control(protocol.Shutdown())
                case lives.Kill(reason, is_hung):
                    self._kill(reason, dump_stacks=is_hung)
                case lives.EndLife(error, asked_for):
                    self._end_life(error_from_info(error), asked_for=asked_for)
                case lives.Stopped():
                    self._stopped.set_result(None)
                case _:
                    assert_never(effect)

    def _spawn(self) -> None:
        self._hellos = 0
        self._hang_watch = HangWatch()
        try:
            life = ActorLife(self.info, self._settings, self._context, self._death, self._threads)
        except CortexError as ex:
            now = time.monotonic()
            self._lifecycle.failed(ex.info(), now)
            self._apply(self._lifecycle.exited(_SPAWN_FAILED_STATUS, now))
            return
        self._life = life
        self._in_flight = InFlight(
            self,
            life.prompt_area.bytes_at(0, life.prompt_area.size_bytes),
            max_requests=self._settings.max_requests,
            on_end=self._owner.request_ended,
        )
        life.on_notice(self._on_notice)
        life.on_bell(self._read_ring)
        life.on_exit(self._on_exit)

    def _kill(self, reason: str, *, dump_stacks: bool) -> None:
        life = self._life
        if life is None:
            return
        fields = kv(device=self.info.id, pid=life.child.pid, cause=reason)
        if not dump_stacks:
            _log.info("actor killed", extra=fields)
            life.child.kill()
            return
        _log.error("actor killed", extra=fields)
        life.dump_stacks()
        asyncio.get_running_loop().call_later(_STACK_DUMP_S, life.child.kill)

    def _end_life(self, error: CortexError, *, asked_for: bool) -> None:
        life, in_flight = self._life, self._in_flight
        self._life = self._in_flight = None
        self._pings.fail_all(error)
        if life is not None and in_flight is not None:
            level = logging.INFO if asked_for else logging.ERROR
            _log.log(level, "actor ended", extra=kv(device=self.info.id, cause=error.message))
            # What the actor published before it died is whole, and is still delivered.
            try:
                in_flight.records(life.ring.read_until(life.ring.published_head))
            except ProtocolError as ex:
                _log.error("ring unreadable", extra=kv(device=self.info.id, cause=ex.message))
            in_flight.fail_all(error)
            life.close()
        self._owner.device_died(self.info.id, error, asked_for=asked_for)

    def _on_exit(self, status: ExitStatus) -> None:
        # Why it left may still be on its way; a process that was killed has nothing to say.
        delay_s = _LAST_WORDS_S if status.returncode > 0 else 0.0
        asyncio.get_running_loop().call_later(delay_s, self._exited, status.returncode)

    def _exited(self, returncode: int) -> None:
        self._apply(self._lifecycle.exited(returncode, time.monotonic()))

    def _on_notice(self, notice: protocol.ControlNotice) -> None:
        if self._life is None:
            return
        now = time.monotonic()
        match notice:
            case protocol.Hello():
                self._hellos += 1
                # One on each socket: with both in, neither loses what is sent to it.
                if self._hellos == 2:
                    self._apply(self._lifecycle.hello(notice.protocol_version, now))
            case protocol.ActorReady():
                self.opened = notice
                self._apply(self._lifecycle.ready(now))
            case protocol.ActorFailed(error):
                self._apply(self._lifecycle.failed(error, now))
            case protocol.Pong(sequence):
                self._pings.answered(sequence)
            case _:
                assert_never(notice)

    def _read_ring(self) -> None:
        life, in_flight = self._life, self._in_flight
        if life is None or in_flight is None:
            return
        try:
            notices = in_flight.records(life.ring.read_until(life.ring.published_head))
        except ProtocolError as ex:
            self.declare_hung(ex.message)
            return
        for notice in notices:
            self._owner.model_notice(notice)

    def _backoff(self, failures: int) -> float:
        first_s, max_s = self._settings.backoff_first_s, self._settings.backoff_max_s
        return min(max_s, first_s * 2.0 ** min(failures - 1, 16))
