"""What the supervisor and its image process say to each other, msgpack over a socket pair.

One request and one reply at a time. Bulk goes along as descriptors of segments: the image's file
one way, the arrays made of it the other.
"""

import msgspec

from cortex_core.errors import ErrorInfo
from neurond.images.arrays import ArrayPlace

MAX_MESSAGE_BYTES = 128 * 1024


class ReadImageJob(msgspec.Struct, frozen=True, array_like=True):
    """Make of the file in the segment that comes along what the model in `folder` takes."""

    folder: str
    size_bytes: int
    """Of the file; the segment may be longer."""
    max_seen_pixels: int
    """A larger image is scaled down to so many before the model's processor gets it."""


class ImageRead(msgspec.Struct, frozen=True, array_like=True):
    """How it went. Where there is no error, a segment with the arrays comes along."""

    key: bytes = b""
    """A hash of the file."""
    places: tuple[ArrayPlace, ...] = ()
    size_bytes: int = 0
    """Of the segment."""
    replacement: str = ""
    """What stands in the prompt for the image, with `FEATURE_MARK` for each feature."""
    error: ErrorInfo | None = None
