"""From the bytes of an image file to pixels, with bounds. Runs in the image process alone.

What a client sends is data from anyone: formats are few, the size is looked at before a pixel is
decoded, and whatever the library says of a broken file is one kind of error.
"""

import struct
import warnings
from io import BytesIO
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from cortex_core.errors import InvalidRequest

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS: Final = 100_000_000
"""Of a file; decoded it takes three to four bytes for each."""
MAX_RATIO: Final = 200
"""Of the sides. Some processors scale the shorter one up to what the model wants, and the longer
one with it: of a line of pixels they make gigabytes."""
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
"""The library refuses twice as many, and before it makes the frame of a GIF, which `open` does."""


def decode_image(data: bytes, *, max_seen_pixels: int) -> Image.Image:
    """Return the image in RGB, upright, of an animation the first frame.

    One with more than `max_seen_pixels` is scaled down to that.

    Raises:
        InvalidRequest: it is no image of `FORMATS`, broken, larger than `MAX_PIXELS`, or one side
            is more than `MAX_RATIO` times the other.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                _refuse_large(image)
                return _upright(image, max_seen_pixels)
        except Image.DecompressionBombError:
            raise _refuse(f"it has too many pixels, {MAX_PIXELS} in all is the most") from None
        except UnidentifiedImageError:
            raise _refuse(f"it is none of {', '.join(FORMATS)}, or broken") from None
        except (OSError, ValueError, SyntaxError, EOFError, KeyError, struct.error) as ex:
            raise _refuse(f"it is broken: {ex}") from ex
        except MemoryError:
            raise _refuse("it takes too much memory; make it smaller") from None


def _upright(image: Image.Image, max_seen_pixels: int) -> Image.Image:
    if image.mode.startswith("I"):
        # Of greys with 16 bits the library keeps the lowest eight values and calls the rest white.
        image = image.point(lambda value: value / 257).convert("L")
    pixels = image.width * image.height
    if pixels > max_seen_pixels:
        share = (max_seen_pixels / pixels) ** 0.5
        size = max(1, int(image.width * share)), max(1, int(image.height * share))
        image.draft("RGB", size)  # a JPEG is decoded at half the size or less, where that is enough
        image = image.convert("RGB") if image.mode != "RGB" else image
        image = image.resize(size, Image.Resampling.BICUBIC)
    return ImageOps.exif_transpose(image).convert("RGB")


def _refuse_large(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _refuse(
            f"it has {image.width} x {image.height} pixels, {MAX_PIXELS} in all is the most"
        )
    if max(image.size) > MAX_RATIO * min(image.size):
        raise _refuse(
            f"it has {image.width} x {image.height} pixels, an aspect ratio of {MAX_RATIO} is the "
            "most"
        )


def _refuse(why: str) -> InvalidRequest:
    return InvalidRequest(f"cannot read the image: {why}")
