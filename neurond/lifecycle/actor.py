"""The lives of one device actor: when to spawn, kill and respawn it.

One `ActorLifecycle` per device, for the daemon's lifetime, driven by the supervisor: every method
is an event and returns what is to be done, in order. Times are monotonic seconds.

| state       | event                     | next        | effects                                |
|-------------|---------------------------|-------------|----------------------------------------|
| NEW         | start                     | STARTING    | Spawn                                  |
| STARTING    | hello, right version      | CONFIGURING | SendConfigure                          |
| STARTING    | hello, other version      | DYING       | Kill                                   |
| CONFIGURING | ready                     | READY       | BecameReady                            |
| up          | hung, handshake deadline  | DYING       | Kill                                   |
| up          | failed (last words)       | DYING       | none; Kill after the grace time        |
| up, DYING   | exited                    | BACKOFF     | EndLife                                |
| BACKOFF     | tick, time is up          | STARTING    | Spawn                                  |
| READY       | restart                   | RESTARTING  | SendShutdown; after the grace time Kill |
| RESTARTING  | exited                    | STARTING    | EndLife, Spawn                         |
| READY       | stop                      | STOPPING    | SendShutdown; after the grace time Kill |
| not READY   | stop                      | STOPPING    | Kill: it does not listen, holds nothing |
| STOPPING    | exited                    | STOPPED     | EndLife, Stopped                       |
| NEW,BACKOFF | stop                      | STOPPED     | Stopped                                |

"up" is STARTING, CONFIGURING or READY, "not READY" is STARTING, CONFIGURING, DYING or RESTARTING.
An event that a row does not name changes nothing.
"""

import enum
import signal
from collections.abc import Callable

import msgspec

from cortex_core.errors import DeviceFailed, ErrorInfo
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import DeviceState


class ActorState(enum.Enum):
    NEW = "new"
    STARTING = "starting"
    CONFIGURING = "configuring"
    READY = "ready"
    RESTARTING = "restarting"
    DYING = "dying"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Spawn(msgspec.Struct, frozen=True):
    """Start a process with fresh sockets and segments."""


class SendConfigure(msgspec.Struct, frozen=True):
    """Answer the actor's hello."""


class BecameReady(msgspec.Struct, frozen=True):
    """Work may be sent; models that belong here may be loaded again."""


class SendShutdown(msgspec.Struct, frozen=True):
    """Ask the actor to exit."""


class Kill(msgspec.Struct, frozen=True):
    """Send SIGKILL; the exit is reported by an event of its own."""

    reason: str
    hung: bool = False
    """It is stuck somewhere, and where is worth knowing."""


class EndLife(msgspec.Struct, frozen=True):
    """The process is gone: fail what it held with `error`, close its sockets and segments."""

    error: ErrorInfo
    asked_for: bool = False
    """It was told to go; nothing is wrong."""


class Stopped(msgspec.Struct, frozen=True):
    """There is no process and there will be none."""


ActorEffect = Spawn | SendConfigure | BecameReady | SendShutdown | Kill | EndLife | Stopped


class ActorTiming(msgspec.Struct, frozen=True):
    """Seconds. `backoff` takes the number of failed lives in a row, from 1."""

    handshake_s: float
    """From spawn to hello, and again from hello to ready."""
    stop_grace_s: float
    """From shutdown, or an actor's last words, to SIGKILL."""
    stable_s: float
    """A life that was ready for so long clears the count of failures."""
    backoff: Callable[[int], float]


_SHUTTING_DOWN = "the node is shutting down"
_RESTARTING = "it is restarted as somebody asked"
_UP = (ActorState.STARTING, ActorState.CONFIGURING, ActorState.READY)


class ActorLifecycle:
    """State of one device's actor over all its lives."""

    def __init__(self, device: DeviceName, protocol_version: int, timing: ActorTiming) -> None:
        self._device = device
        self._protocol_version = protocol_version
        self._timing = timing
        self._deadline_s: float | None = None
        self._ready_since_s: float | None = None
        self._failures = 0
        self._cause: str | None = None
        self.state = ActorState.NEW
        self.restarts = 0
        self.last_error: ErrorInfo | None = None

    @property
    def device_state(self) -> DeviceState:
        """The state as `/health` names it."""
        match self.state:
            case ActorState.READY:
                return "ready"
            case ActorState.DYING | ActorState.BACKOFF:
                return "failed"
            case ActorState.STOPPING | ActorState.STOPPED:
                return "draining"
            case _:
                return "starting"

    def start(self, now: float) -> list[ActorEffect]:
        """Spawn for the first time."""
        return self._spawn(now) if self.state is ActorState.NEW else []

    def hello(self, protocol_version: int, now: float) -> list[ActorEffect]:
        """The process is there and has watched its parent since."""
        if self.state is not ActorState.STARTING:
            return []
        if protocol_version != self._protocol_version:
            return self._kill(
                f"it speaks protocol {protocol_version}, the supervisor {self._protocol_version}"
            )
        self.state = ActorState.CONFIGURING
        self._deadline_s = now + self._timing.handshake_s
        return [SendConfigure()]

    def ready(self, now: float) -> list[ActorEffect]:
        """The device is open."""
        if self.state is not ActorState.CONFIGURING:
            return []
        self.state = ActorState.READY
        self._deadline_s = None
        self._ready_since_s = now
        self.last_error = None
        return [BecameReady()]

    def failed(self, error: ErrorInfo, now: float) -> list[ActorEffect]:
        """The actor said why it will exit; it has the grace time to do so."""
        if self.state in _UP:
            self._cause = error.message
            self.state = ActorState.DYING
            self._deadline_s = now + self._timing.stop_grace_s
        return []

    def hung(self, reason: str) -> list[ActorEffect]:
        """The actor stopped making progress."""
        return self._kill(reason) if self.state in _UP else []

    def exited(self, status: int, now: float) -> list[ActorEffect]:
        """The process has been reaped. `status` is its exit code, or minus a signal number."""
        if self.state is ActorState.STOPPING:
            self.state = ActorState.STOPPED
            self._deadline_s = None
            return [EndLife(self._death(status), asked_for=True), Stopped()]
        if self.state is ActorState.RESTARTING:
            self.restarts += 1
            return [EndLife(self._death(status), asked_for=True), *self._spawn(now)]
        if self.state not in (*_UP, ActorState.DYING):
            return []
        self._count_failure(now)
        self.last_error = self._death(status)
        self.state = ActorState.BACKOFF
        self._deadline_s = now + self._timing.backoff(self._failures)
        return [EndLife(self.last_error)]

    def restart(self, now: float) -> list[ActorEffect]:
        """End this life in order and begin the next at once."""
        if self.state is not ActorState.READY:
            return []
        self.state = ActorState.RESTARTING
        self._cause = _RESTARTING
        self._deadline_s = now + self._timing.stop_grace_s
        return [SendShutdown()]

    def stop(self, now: float) -> list[ActorEffect]:
        """End this life, if there is one, and have no other."""
        match self.state:
            case ActorState.NEW | ActorState.BACKOFF:
                self.state = ActorState.STOPPED
                self._deadline_s = None
                return [Stopped()]
            case ActorState.READY:
                self.state = ActorState.STOPPING
                self._cause = _SHUTTING_DOWN
                self._deadline_s = now + self._timing.stop_grace_s
                return [SendShutdown()]
            case (
                ActorState.STARTING
                | ActorState.CONFIGURING
                | ActorState.DYING
                | ActorState.RESTARTING
            ):
                self.state = ActorState.STOPPING
                self._cause = _SHUTTING_DOWN
                self._deadline_s = None
                return [Kill(_SHUTTING_DOWN)]
            case _:
                return []

    def tick(self, now: float) -> list[ActorEffect]:
        """Let time pass."""
        if self._deadline_s is None or now < self._deadline_s:
            return []
        match self.state:
            case ActorState.STARTING:
                return self._kill(f"it said nothing for {self._timing.handshake_s:g} s")
            case ActorState.CONFIGURING:
                return self._kill(f"it did not open its device in {self._timing.handshake_s:g} s")
            case ActorState.BACKOFF:
                self.restarts += 1
                return self._spawn(now)
            case ActorState.DYING | ActorState.STOPPING | ActorState.RESTARTING:
                self._deadline_s = None
                return [Kill(f"it did not exit within {self._timing.stop_grace_s:g} s", hung=True)]
            case _:
                return []

    def _spawn(self, now: float) -> list[ActorEffect]:
        self.state = ActorState.STARTING
        self._deadline_s = now + self._timing.handshake_s
        self._ready_since_s = None
        self._cause = None
        return [Spawn()]

    def _kill(self, reason: str) -> list[ActorEffect]:
        self.state = ActorState.DYING
        self._deadline_s = None
        self._cause = reason
        return [Kill(reason, hung=True)]

    def _count_failure(self, now: float) -> None:
        since = self._ready_since_s
        if since is not None and now - since >= self._timing.stable_s:
            self._failures = 0
        self._failures += 1

    def _death(self, status: int) -> ErrorInfo:
        how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
        cause = self._cause
        if cause is None and status == -signal.SIGKILL:
            cause = "nobody here killed it: the host may have run out of memory"
        reason = f" ({cause})" if cause else ""
        return ErrorInfo(
            DeviceFailed.code,
            f"cannot go on: the actor of device {self._device} {how}{reason}",
            retry_after_s=1.0,
        )
