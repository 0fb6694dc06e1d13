"""Images in a prompt, as the engine sees them: placeholder tokens that stand for content.

Each image has a run of placeholders in the token ids, all with the same id, perhaps with other
tokens between them. What they mean is not in the ids, so whatever compares tokens (the prefix
cache) compares the key of the image too. The content itself is only passed on to the runner.

No torch here; scheduler, runner and actor import this module.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cortex_core.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    ImageInputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class PromptImage:
    """One image of a prompt."""

    key: bytes
    """Equal for equal content; of one length for all."""
    places: array[int]
    """Where its placeholders are in the token ids, ascending; never empty."""
    inputs: ImageInputs
    """What the model's vision tower takes, by name."""

    @property
    def start(self) -> int:
        return self.places[0]

    @property
    def stop(self) -> int:
        return self.places[-1] + 1


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ImagePrompt:
    """The images of one request, in the order of their placeholders; its choices share it."""

    images: tuple[PromptImage, ...]


TokenRuns = tuple[tuple[int, int], ...]
"""Tokens of a sequence that stand side by side, as (first, behind the last), ascending."""


def place_images(
    token_ids: Sequence[int], token_id: int, images: Iterable[tuple[bytes, int, Any]]
) -> ImagePrompt:
    """Find the placeholders of images, given as key, number of placeholders and inputs.

    Raises:
        InvalidRequest: there are fewer or more placeholders than the images have.
    """
    found = array("i", (place for place, id_ in enumerate(token_ids) if id_ == token_id))
    placed: list[PromptImage] = []
    at = 0
    for key, num_tokens, inputs in images:
        placed.append(PromptImage(key, found[at : at + num_tokens], inputs))
        at += num_tokens
    if at != len(found):
        raise InvalidRequest(
            f"cannot place the images: the prompt has {len(found)} placeholder tokens, and its "
            f"images stand for {at}",
            param="messages",
        )
    return ImagePrompt(tuple(placed))


def token_runs(images: ImagePrompt) -> TokenRuns:
    """Return where placeholders of one image stand side by side."""
    runs: list[tuple[int, int]] = []
    for image in images.images:
        first = behind = image.start
        for place in image.places:
            if place != behind:
                runs.append((first, behind))
                first = place
            behind = place + 1
        runs.append((first, behind))
    return tuple(runs)


def image_marks(images: ImagePrompt, start: int, stop: int) -> bytes:
    """Return what tells tokens `start` up to `stop` from equal ones with other images in them."""
    marks = b""
    for image in images.images:
        if image.start < stop and start < image.stop:
            offsets = array("q", (image.start - start, image.stop - start))
            marks += image.key + offsets.tobytes()
    return marks
