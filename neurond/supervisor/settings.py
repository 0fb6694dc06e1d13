"""What the daemon's configuration tells the supervisor."""

from pathlib import Path

import msgspec

from cortex_core.sizes import MIB


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and deadlines; all but `runtime_dir` have values that suit a real host."""

    runtime_dir: Path
    """Private folder for sockets, mode 0700; what a killed predecessor left there is removed."""
    backend: str | None = None
    """`module:name` of the actors' `neurond.actor.backend.Backend`, made in the actor; None is the
    one for the kind of device."""
    threads: int | None = None
    """Of a CPU device; None is what this process may use."""
    prompt_area_bytes: int = 16 * MIB
    """For prompts on their way to one actor, 4 bytes a token."""
    ring_bytes: int = 1 * MIB
    max_requests: int = 256
    """Requests on one device, running and waiting; one more is refused with `queue_full`."""
    watch_interval_s: float = 0.25
    """Between looks at deadlines. A deadline counts once it has passed at two looks."""
    handshake_s: float = 180.0
    idle_deadline_s: float = 15.0
    """For an idle actor's sign of life, which it gives each second or third of the deadline."""
    step_deadline_s: float = 120.0
    blocked_deadline_s: float = 60.0
    """For an actor whose ring is full."""
    load_deadline_s: float = 1800.0
    """For one load, after which its actor is killed: a thread that is stuck cannot be ended."""
    unload_drain_s: float = 60.0
    """How long a busy model that is to be unloaded may finish what runs on it."""
    stop_grace_s: float = 5.0
    stable_s: float = 60.0
    backoff_first_s: float = 0.2
    backoff_max_s: float = 30.0
