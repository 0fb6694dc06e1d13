"""Reading images in a process of its own: what becomes of it, and of those who wait."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cortex_core.canonical import MediaPart
from cortex_core.errors import CortexError, InternalError, InvalidRequest, Overloaded
from cortex_core.ipc.child import python_command
from neurond.images import reader as reader_module
from neurond.images.arrays import map_arrays
from neurond.images.limits import ImageLimits
from neurond.images.read_image import ReadImage, close_images
from neurond.images.reader import ImageReader
from neurond.text.image_marks import FoundImage
from neurond.text.pool import TextPool

FOLDER = Path("/model")


def image(data: bytes, place: str = "messages[0].content[0]") -> FoundImage:
    return FoundImage(place, MediaPart("image", "image/png", data))


def obedient(_module: str, *arguments: str) -> list[str]:
    return python_command("tests.fakes.image_process", *arguments)


def held_images() -> list[str]:
    """Return this process's mappings and descriptors of images."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    opened = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return [name for name in (*mapped, *opened) if "neuron-image" in name]


@asynccontextmanager
async def new_reader(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ImageReader]:
    monkeypatch.setattr(reader_module, "python_command", obedient)
    pool = TextPool(1)
    started = ImageReader(ImageLimits(max_images=5, max_bytes=100), pool)
    yield started
    await started.close()
    pool.close()
    assert held_images() == []


@pytest.fixture
async def reader(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ImageReader]:
    async with new_reader(monkeypatch) as started:
        yield started


async def read(reader: ImageReader, *images: FoundImage, folder: Path = FOLDER) -> list[ReadImage]:
    return await reader.read(folder, images)


async def test_arrays_come_back(reader: ImageReader) -> None:
    one, two = await read(reader, image(b"abc"), image(b"de"))
    assert (one.num_tokens, one.text("I")) == (3, "<III>")
    arrays = map_arrays(os.dup(two.segment.fd), two.places)
    assert arrays["pixel_values"].tobytes() == b"de"
    close_images([one, two])
    assert arrays["pixel_values"].tobytes() == b"de"


async def test_limits_name_the_image(reader: ImageReader) -> None:
    images = [image(b"a", f"messages[0].content[{place}]") for place in range(6)]
    with pytest.raises(InvalidRequest, match="6 images, 5 is the most") as caught:
        await read(reader, *images)
    assert caught.value.param == "messages[0].content[5]"
    with pytest.raises(InvalidRequest, match="101 bytes, 100 is the most") as caught:
        await read(reader, images[0], image(bytes(101), "messages[0].content[1]"))
    assert caught.value.param == "messages[0].content[1]"


async def test_what_a_request_may_hold_has_a_bound(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAX_REQUEST_BYTES", 100)
    close_images(await read(reader, image(b"a")))
    with pytest.raises(InvalidRequest, match="128 bytes as the model takes them, 100") as caught:
        await read(reader, image(b"a"), image(b"a", "messages[0].content[1]"))
    assert caught.value.param == "messages[0].content[1]"


async def test_requests_take_turns_image_by_image(reader: ImageReader) -> None:
    count = Path("/count")
    asked = [[image(b"a")] * 5, [image(b"b")], [image(b"c")] * 2]
    reading = [asyncio.create_task(reader.read(count, images)) for images in asked]
    done = await asyncio.gather(*reading)
    order = [[int(read.key) for read in images] for images in done]
    assert order == [[1, 4, 6, 7, 8], [2], [3, 5]]
    for images in done:
        close_images(images)


async def test_images_on_their_way_have_a_bound_over_all_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image takes 64 bytes here."""
    monkeypatch.setattr(reader_module, "MAX_HELD_BYTES", 100)
    async with new_reader(monkeypatch) as reader:
        first = await read(reader, image(b"a"), image(b"b"))
        waiting = [asyncio.create_task(read(reader, image(b"c"))) for _ in range(2)]
        leaving = asyncio.create_task(read(reader, image(b"d")))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert not any(task.done() for task in waiting)
        close_images(first)
        for task in waiting:
            close_images(await task)
        # Two who hold what both wait for: the older one goes on.
        both = [
            asyncio.create_task(read(reader, *([image(b"e")] * 4))),
            asyncio.create_task(read(reader, *([image(b"f")] * 4))),
        ]
        close_images(await both[0])
        close_images(await both[1])


async def test_who_gets_no_room_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_HELD_BYTES", 50)
    monkeypatch.setattr(reader_module, "ROOM_S", 0.05)
    async with new_reader(monkeypatch) as reader:
        first = await read(reader, image(b"a"))
        with pytest.raises(Overloaded, match="those of other requests take 64 bytes, 50 is the"):
            await read(reader, image(b"b"))
        close_images(first)
        close_images(await read(reader, image(b"c")))


@pytest.mark.parametrize(
    ("folder", "error", "why"),
    [
        ("/break", InvalidRequest, "decoding it broke"),
        ("/spin", InvalidRequest, "it takes too long"),
        ("/exit", InternalError, "ended with status 3"),
    ],
)
async def test_a_process_that_ends_fails_one_request(
    reader: ImageReader, folder: str, error: type[CortexError], why: str
) -> None:
    asked = [
        asyncio.create_task(read(reader, image(b"a"), folder=Path(folder))),
        asyncio.create_task(read(reader, image(b"abc"))),
    ]
    failed, done = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(failed, error)
    assert why in str(failed)
    assert "messages[0].content[0]" in str(failed)
    assert isinstance(done, list)
    close_images(done)


async def test_one_that_does_not_answer_is_given_up(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_images(await read(reader, image(b"a")))
    with monkeypatch.context() as patched:
        patched.setattr(reader_module, "READ_S", 0.1)
        with pytest.raises(Overloaded, match="no time"):
            await read(reader, image(b"a"), folder=Path("/sleep"))
    close_images(await read(reader, image(b"a")))


async def test_a_host_without_memory_for_a_file(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(Overloaded, match="no memory for its file: No space left"):
            await read(reader, image(b"a"))
    assert held_images() == []
    close_images(await read(reader, image(b"a")))


async def test_who_leaves_lets_others_go_on(reader: ImageReader) -> None:
    first = await read(reader, image(b"a"))
    leaving = asyncio.create_task(read(reader, image(b"b"), image(b"c"), folder=Path("/pid")))
    staying = asyncio.create_task(read(reader, image(b"abc"), folder=Path("/pid")))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    done = await staying
    after = await read(reader, image(b"abc"), folder=Path("/pid"))
    assert done[0].key == after[0].key  # by one process
    close_images([*first, *done, *after])
