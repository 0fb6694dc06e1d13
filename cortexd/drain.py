"""Where an HTTP worker is on its way out."""


class Drain:
    """Two flags that are set once each, by the worker's signal handler, and read for every event.

    Attributes:
        begun: no new work is taken.
        expired: running streams end now, with their dialect's error.
    """

    __slots__ = ("begun", "expired")

    def __init__(self) -> None:
        self.begun = False
        self.expired = False

    def begin(self) -> None:
        """Take no new work from now on. Idempotent."""
        self.begun = True

    def expire(self) -> None:
        """End what still runs. Idempotent."""
        self.begun = True
        self.expired = True
