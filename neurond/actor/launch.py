"""What a supervisor hands to an actor that it spawns: names, numbers and open descriptors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multiprocess import reduction

from cortex_core.ids import BootId, DeviceName


class PassedFd:
    """A descriptor that a spawned process inherits; `fd` is its number on either side."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Callable[[Any], "PassedFd"], tuple[Any]]:
        # Only while a process is being spawned does DupFd put the descriptor on its list.
        return _received, (reduction.DupFd(self.fd),)


def _received(passed: Any) -> PassedFd:
    return PassedFd(passed.detach())


@dataclass(frozen=True, slots=True)
class PhaseDeadlines:
    """Seconds after which the supervisor takes an actor in that phase for hung."""

    idle_s: float
    step_s: float
    blocked_s: float


@dataclass(frozen=True, slots=True)
class Launch:
    """One life of an actor.

    Segments are the supervisor's; the actor maps them and never removes anything.
    """

    device: DeviceName
    boot_id: BootId
    parent_pid: int
    death: PassedFd
    prompt_area: PassedFd
    ring: PassedFd
    bell: PassedFd
    """Rings in the supervisor for what is new on the ring."""
    liveness: PassedFd
    images: PassedFd
    """Socket over which descriptors of images come; see `neurond.actor.images`."""
    control_path: str
    data_path: str
    backend: str
    """`module:name` of a callable that returns a `neurond.actor.backend.Backend`."""
    deadlines: PhaseDeadlines
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set before anything that reads it, such as OpenMP, is loaded."""
    log_level: str = "info"
