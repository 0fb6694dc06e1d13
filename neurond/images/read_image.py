"""An image as a model takes it, between the process that read it and the device."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cortex_core.ipc.segment import Segment
from neurond.images.arrays import ArrayPlace
from neurond.images.held import ImageLease

FEATURE_MARK: Final = "\0"
"""Stands for `ImageTokens.token` in `ReadImage.replacement`: there can be tens of thousands."""


class ReadImage(NamedTuple):
    """Whoever holds it calls `close_images`, once it was passed on."""

    key: bytes
    """A hash of the image's file."""
    replacement: str
    """What stands in the prompt for it, with a mark for each feature."""
    places: tuple[ArrayPlace, ...]
    segment: Segment
    lease: ImageLease

    @property
    def num_tokens(self) -> int:
        """Those that stand for a feature each."""
        return self.replacement.count(FEATURE_MARK)

    def text(self, token: str) -> str:
        """Return what stands in the prompt."""
        return self.replacement.replace(FEATURE_MARK, token)


def close_images(images: Sequence[ReadImage]) -> None:
    """Give back what is held of images; idempotent."""
    for image in images:
        image.segment.close()
        image.lease.release()
