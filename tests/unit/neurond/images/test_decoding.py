"""From files to pixels, or to one kind of error."""

import contextlib
import io
import resource
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cortex_core.errors import InvalidRequest
from neurond.images import decoding
from neurond.images.decoding import decode_image

MANY = 10**6


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def picture(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 7 % 256, y * 5 % 256, 9) for y in range(height) for x in range(width)])
    return image


def test_pixels_come_back() -> None:
    assert decode_image(saved(picture(9, 5), "PNG"), max_seen_pixels=MANY) == picture(9, 5)


def test_a_large_image_is_scaled_down_in_proportion() -> None:
    for form in ("PNG", "JPEG"):
        seen = decode_image(saved(picture(400, 100), form), max_seen_pixels=10_000)
        assert seen.size == (200, 50)


@pytest.mark.parametrize("max_seen_pixels", [MANY, 16])
def test_greys_of_sixteen_bits_keep_their_shades(max_seen_pixels: int) -> None:
    deep = Image.new("I;16", (8, 8), 30_000)
    seen = decode_image(saved(deep, "PNG"), max_seen_pixels=max_seen_pixels)
    assert seen.getextrema() == ((116, 116),) * 3


def test_a_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(saved(picture(8, 4), "JPEG", exif=exif), max_seen_pixels=MANY)
    assert turned.size == (4, 8)
    assert decode_image(
        saved(picture(400, 100), "JPEG", exif=exif), max_seen_pixels=10_000
    ).size == (50, 200)


def test_pixels_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(InvalidRequest, match="it has 10 x 10 pixels, 99 in all is the most"):
        decode_image(saved(picture(10, 10), "PNG"), max_seen_pixels=MANY)


def test_a_small_file_cannot_claim_a_huge_frame() -> None:
    sides = struct.pack("<HH", 65_535, 65_535)
    screen = b"GIF89a" + sides + b"\x80\0\0" + bytes(6)
    kept_behind = b"\x21\xf9\x04\x08" + bytes(4)
    frame = b"\x2c" + bytes(4) + sides + b"\0\x02\x02\x44\x01\0"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidRequest, match="pixels, 100000000 in all is the most"):
        decode_image(screen + kept_behind + frame + b"\x3b", max_seen_pixels=MANY)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 500_000


def test_lines_of_pixels_are_refused() -> None:
    for size in ((200, 1), (1, 200)):
        assert decode_image(saved(picture(*size), "PNG"), max_seen_pixels=MANY).size == size
    for size in ((201, 1), (1, 201)):
        with pytest.raises(InvalidRequest, match="an aspect ratio of 200 is the most"):
            decode_image(saved(picture(*size), "PNG"), max_seen_pixels=MANY)


def test_formats_that_nobody_needs_are_not_read() -> None:
    with pytest.raises(InvalidRequest, match="it is none of PNG, JPEG"):
        decode_image(saved(picture(9, 5), "TIFF"), max_seen_pixels=MANY)


GOOD = [saved(picture(30, 20), form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]


@given(st.sampled_from(GOOD), st.data())
def test_broken_files_are_refused_or_read(file: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(file)))
    broken = bytearray(file[:end])
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequest):
        decode_image(bytes(broken), max_seen_pixels=MANY)
