"""When an actor that says nothing counts as hung."""

from cortex_core.ipc.liveness import Liveness, hung


class HangWatch:
    """Looks at one actor's liveness, again and again.

    A deadline counts once it has passed at two looks with no sign of life in between: after a
    suspension of the whole host, or of the watching process, every deadline has passed at the
    first look, and at the second whoever is well has said so.
    """

    def __init__(self) -> None:
        self._suspect: Liveness | None = None

    def look(self, record: Liveness | None, now: float) -> str | None:
        """Return why the actor is hung, or None. `now` is CLOCK_MONOTONIC in seconds."""
        reason = hung(record, now) if record is not None else None
        if reason is None:
            self._suspect = None
            return None
        seen_before = record == self._suspect
        self._suspect = record
        return reason if seen_before else None
