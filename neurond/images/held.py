"""How much memory images take that were read and are not on their way to a device yet. Decides.

Those of a request are read one by one and held together until it is submitted. While they all wait
for room nobody would give any back, so the oldest of those that are being read may always go on,
unless it is requests behind their reading that take the room: they give it back by themselves.
"""

from collections.abc import Callable


class ImageLease:
    """What one image takes of `HeldImages`, until `release`."""

    def __init__(self, held: "HeldImages", request: object, size_bytes: int) -> None:
        self._held = held
        self._request = request
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Give it back; idempotent."""
        size_bytes, self._size_bytes = self._size_bytes, 0
        if size_bytes:
            self._held.give_back(self._request, size_bytes)


class HeldImages:
    """Images of all requests of a node. Requests are any objects, told apart by identity."""

    def __init__(self, limit_bytes: int, on_change: Callable[[], None]) -> None:
        """`on_change` hears of every event after which somebody may go on."""
        self._limit_bytes = limit_bytes
        self._on_change = on_change
        self._bytes = 0
        self._reading: dict[object, int] = {}  # their bytes, oldest request first

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def begin(self, request: object) -> None:
        """A request's images are to be read."""
        self._reading[request] = 0

    def may_read(self, request: object) -> bool:
        """Tell whether the next image of a request that has begun may be read now."""
        if self._bytes < self._limit_bytes:
            return True
        finished_bytes = self._bytes - sum(self._reading.values())
        return next(iter(self._reading)) is request and finished_bytes < self._limit_bytes

    def hold(self, request: object, size_bytes: int) -> ImageLease:
        """An image of a request that has begun was read."""
        self._bytes += size_bytes
        self._reading[request] += size_bytes
        return ImageLease(self, request, size_bytes)

    def end(self, request: object) -> None:
        """All that is wanted of a request was read; what it holds stays held."""
        del self._reading[request]
        self._on_change()

    def give_back(self, request: object, size_bytes: int) -> None:
        """An image went on its way, or is not wanted any more."""
        self._bytes -= size_bytes
        if request in self._reading:
            self._reading[request] -= size_bytes
        self._on_change()
