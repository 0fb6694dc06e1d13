"""What a node takes of images at most."""

from typing import Final

import msgspec

from cortex_core.sizes import MIB

MAX_FDS: Final = 253
"""Descriptors in one message, by the kernel's limit; each image of a request has one."""


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """From the node's configuration."""

    max_images: int = 32
    """In one request."""
    max_bytes: int = 20 * MIB
    """Of one file."""
    max_seen_pixels: int = 4_000_000
    """Of one image, as the model's processor gets it; larger ones are scaled down."""
