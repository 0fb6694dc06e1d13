"""What a vision tower takes of one image, in shared memory: arrays by name, one behind another.

Made by the image process, kept by the supervisor until the request is on its way, mapped by the
actor. Each image has a segment of its own, which is gone with the last process that holds it.
"""

import mmap
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from cortex_core.errors import ProtocolError
from cortex_core.ipc.segment import Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALIGNMENT_BYTES: Final = 64


class ArrayPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where one array lies in its segment, in C order."""

    name: str
    """A keyword of the model's `get_image_features`."""
    dtype: str
    shape: tuple[int, ...]
    offset: int


class StoredArrays(NamedTuple):
    """Arrays in a segment that whoever holds this must close."""

    segment: Segment
    places: tuple[ArrayPlace, ...]


def store_arrays(arrays: Mapping[str, "NDArray[np.generic]"]) -> StoredArrays:
    """Copy arrays into a new segment.

    Raises:
        InternalError: there is no memory for it.
    """
    places = []
    size = 0
    for name, array in arrays.items():
        places.append(ArrayPlace(name, array.dtype.str, array.shape, size))
        size += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    segment = Segment.create("neuron-image", max(size, ALIGNMENT_BYTES))
    for place, array in zip(places, arrays.values(), strict=True):
        view = segment.bytes_at(place.offset, array.nbytes)
        view[:] = array.tobytes()
    return StoredArrays(segment, tuple(places))


def map_arrays(fd: int, places: Sequence[ArrayPlace]) -> dict[str, "NDArray[np.generic]"]:
    """Return the arrays of a segment, read only; takes `fd` over, and closes it.

    The memory is given back with the last of the arrays.

    Raises:
        ProtocolError: they do not lie in the segment.
    """
    import numpy as np

    try:
        # Private, as torch wants memory that can be written; nobody writes.
        memory = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
        return {
            place.name: np.ndarray(place.shape, np.dtype(place.dtype), memory, place.offset)
            for place in places
        }
    except (OSError, ValueError, TypeError) as ex:
        raise ProtocolError(f"cannot map an image: {ex}") from ex
    finally:
        os.close(fd)
