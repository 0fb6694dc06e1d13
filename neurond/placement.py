"""Which of this node's devices a model goes to. Pure."""

from collections.abc import Sequence

import msgspec

from cortex_core.errors import InvalidRequest, OutOfMemory
from cortex_core.ids import DeviceName, ModelId


class DeviceRoom(msgspec.Struct, frozen=True):
    """A device as placement sees it. Bytes."""

    device: DeviceName
    usable: bool
    """Its actor is up or on its way, not failing."""
    total_bytes: int
    measured_free_bytes: int
    reserved_bytes: int
    """Planned for models that are loaded or loading."""
    arriving_bytes: int
    """Of these, planned for models that are loading and may not have been measured yet."""

    @property
    def free_bytes(self) -> int:
        """What a new model may take: neither memory in use nor memory that is promised."""
        return max(
            0,
            min(
                self.measured_free_bytes - self.arriving_bytes,
                self.total_bytes - self.reserved_bytes,
            ),
        )


def choose_device(
    model_id: ModelId, wanted: Sequence[DeviceName], rooms: Sequence[DeviceRoom]
) -> DeviceRoom:
    """Return the device with the most free memory, of those `wanted` if any are.

    A device that works goes before one that does not.

    Raises:
        InvalidRequest: a wanted device is not on this node.
        OutOfMemory: there is no device at all.
    """
    known = {room.device: room for room in rooms}
    for name in wanted:
        if name not in known:
            raise InvalidRequest(
                f"cannot load {model_id} on {name!r}: this node has {', '.join(sorted(known))}",
                param="devices",
            )
    candidates = [known[name] for name in wanted] or list(rooms)
    if not candidates:
        raise OutOfMemory(f"cannot load {model_id}: this node has no device")
    return max(candidates, key=lambda room: (room.usable, room.free_bytes))
