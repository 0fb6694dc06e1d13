"""Images of requests, read in a process of its own (`neurond.images.process`), one at a time.

Requests take turns, image by image: one image waits for one of each other request at most.

An image is data from anyone, and libraries that decode it have had their holes: one that breaks
the process, or takes too long in it, fails its own request, and the next image gets a new process.
"""

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InternalError,
    InvalidRequest,
    Overloaded,
    error_from_info,
)
from cortex_core.ipc.child import python_command
from cortex_core.ipc.segment import Segment
from neurond.images.held import HeldImages
from neurond.images.limits import ImageLimits
from neurond.images.messages import MAX_MESSAGE_BYTES, ImageRead, ReadImageJob
from neurond.images.read_image import ReadImage, close_images
from neurond.text.image_marks import FoundImage
from neurond.text.pool import TextPool

MAX_PENDING: Final = 256
"""Requests with images that are read or wait for it."""
MAX_REQUEST_BYTES: Final = 1 << 30
"""Of the images of one request, as a vision tower takes them: some 25 MB for a megapixel."""
MAX_HELD_BYTES: Final = 1 << 30
"""Of all requests, from their reading until they are submitted; see `neurond.images.held`."""
ROOM_S: Final = 30.0
"""How long an image waits for others' to be gone."""
RETRY_AFTER_S: Final = 1.0
START_S: Final = 120.0
"""For the process to be ready for its first image; transformers takes seconds to import."""
READ_S: Final = 60.0


class ImageReader:
    """Reads images, one at a time. Lives on the daemon's loop; owns its process until `close`.

    The process starts with the first image, or with `warm`.
    """

    def __init__(self, limits: ImageLimits, pool: TextPool) -> None:
        self._limits = limits
        self._pool = pool
        self._turn = asyncio.Lock()  # first come, first served
        self._changed = asyncio.Event()
        self._held = HeldImages(MAX_HELD_BYTES, self._wake)
        self._jobs: set[asyncio.Task[list[ReadImage]]] = set()
        self._process: _ImageProcess | None = None
        self._starting: asyncio.Task[_ImageProcess] | None = None

    def warm(self) -> None:
        """Start the process, if none runs: images are to be expected."""
        if self._starting is None and (self._process is None or self._process.ended):
            self._starting = asyncio.create_task(_ImageProcess.start())

    async def read(self, folder: Path, images: Sequence[FoundImage]) -> list[ReadImage]:
        """Return images as the model in `folder` takes them.

        Who is cancelled leaves at once; the image that is being read is read to its end, as ending
        the process would cost others seconds.

        Raises:
            InvalidRequest: there are too many, or one is too large, broken or no image; the
                message and `param` say where it is.
            Overloaded: there was no time for them, or no room.
        """
        self._check(images)
        if len(self._jobs) >= MAX_PENDING:
            raise _overloaded(f"{len(self._jobs)} other requests wait with theirs")
        left = asyncio.Event()
        job = asyncio.create_task(self._read_all(folder, images, left))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            left.set()
            self._wake()
            job.add_done_callback(_close_results)
            raise

    async def close(self) -> None:
        """End the process; nothing is read any more."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        if self._starting is not None:
            with contextlib.suppress(CortexError):
                self._process = await self._starting
        if self._process is not None:
            await self._process.end()

    def _check(self, images: Sequence[FoundImage]) -> None:
        limits = self._limits
        if len(images) > limits.max_images:
            raise InvalidRequest(
                f"cannot read {images[limits.max_images].place}: the request has {len(images)} "
                f"images, {limits.max_images} is the most; leave out some",
                param=images[limits.max_images].place,
            )
        for place, part in images:
            size = len(part.data or b"")
            if size > limits.max_bytes:
                raise InvalidRequest(
                    f"cannot read {place}: the image has {size} bytes, {limits.max_bytes} is the "
                    "most; make it smaller",
                    param=place,
                )

    async def _read_all(
        self, folder: Path, images: Sequence[FoundImage], left: asyncio.Event
    ) -> list[ReadImage]:
        request = object()
        done: list[ReadImage] = []
        self._held.begin(request)
        try:
            for image in images:
                await self._take_turn(request, left)
                try:
                    if left.is_set():
                        break
                    done.append(await self._read(folder, image, request))
                finally:
                    self._turn.release()
                _refuse_large(done, image.place)
        except BaseException:
            close_images(done)
            raise
        finally:
            self._held.end(request)
        return done

    async def _take_turn(self, request: object, left: asyncio.Event) -> None:
        """Return once it is the request's turn and there is room for an image, or it has left."""
        deadline_s: float | None = None
        while True:
            await self._turn.acquire()
            if left.is_set() or self._held.may_read(request):
                return
            changed = self._changed
            self._turn.release()
            deadline_s = deadline_s or asyncio.get_running_loop().time() + ROOM_S
            try:
                async with asyncio.timeout_at(deadline_s):
                    await changed.wait()
            except TimeoutError:
                raise _overloaded(
                    f"those of other requests take {self._held.held_bytes} bytes, "
                    f"{MAX_HELD_BYTES} is the most"
                ) from None

    def _wake(self) -> None:
        """Let those look again who wait for room."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _read(self, folder: Path, image: FoundImage, request: object) -> ReadImage:
        process = await self._running()
        data = image.part.data or b""
        file = await self._stored(data)
        job = ReadImageJob(str(folder), len(data), self._limits.max_seen_pixels)
        try:
            with contextlib.closing(file):
                answer = await process.ask(job, file.fd)
        except BaseException:
            await process.end()
            raise
        if answer is None:
            raise _at(_failed(await process.end()), image.place)
        read, segment = answer
        if read.error is not None:
            raise _at(error_from_info(read.error), image.place)
        if segment is None:
            raise InternalError(f"cannot read {image.place}: the image process sent nothing")
        lease = self._held.hold(request, segment.size_bytes)
        return ReadImage(read.key, read.replacement, read.places, segment, lease)

    async def _stored(self, data: bytes) -> Segment:
        storing = asyncio.ensure_future(self._pool.run(lambda: _in_segment(data)))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            storing.add_done_callback(_close_result)
            raise

    async def _running(self) -> "_ImageProcess":
        """Return the process, started if none runs."""
        self.warm()
        if self._starting is not None:
            starting, ended = self._starting, self._process
            try:
                self._process = await asyncio.shield(starting)
            finally:
                if starting.done():
                    self._starting = None
            if ended is not None:
                await ended.end()  # it died with nothing to do, and its socket is still here
        assert self._process is not None, "it was started"
        return self._process


class _ImageProcess:
    """A running image process and the socket to it."""

    def __init__(self, process: Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._asked = False

    @classmethod
    async def start(cls) -> "_ImageProcess":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with contextlib.closing(theirs):
            argv = python_command("neurond.images.process", str(theirs.fileno()))
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv, stdin=DEVNULL, stdout=DEVNULL, pass_fds=(theirs.fileno(),)
                )
            except OSError as ex:
                ours.close()
                raise InternalError(f"cannot start the image process: {ex}") from ex
        return cls(process, ours)

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def ask(self, job: ReadImageJob, fd: int) -> tuple[ImageRead, Segment | None] | None:
        """Return the answer to a job, or None if the process ended over it.

        Raises:
            Overloaded: there was none in time.
        """
        try:
            socket.send_fds(self._connection, [msgspec.msgpack.encode(job)], [fd])
            async with asyncio.timeout(READ_S if self._asked else START_S):
                await self._readable()
        except TimeoutError:
            raise _overloaded("the host has no time for it") from None
        except (BrokenPipeError, ConnectionError):
            return None
        self._asked = True
        try:
            message, fds, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE_BYTES, 1)
        except ConnectionError:
            return None
        if not message:
            return None
        read = msgspec.msgpack.decode(message, type=ImageRead)
        return read, Segment.attach(fds[0]) if fds else None

    async def end(self) -> int:
        """Kill the process and return its status; idempotent."""
        if self._process.returncode is None:
            # One that has just died has its own status still to be fetched.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._process.wait()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._connection.close()
        return await self._process.wait()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._connection, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._connection)


def _refuse_large(images: Sequence[ReadImage], place: str) -> None:
    size = sum(image.segment.size_bytes for image in images)
    if size > MAX_REQUEST_BYTES:
        raise InvalidRequest(
            f"cannot read {place}: with it the request's images have {size} bytes as the model "
            f"takes them, {MAX_REQUEST_BYTES} is the most; leave out some, or make them smaller",
            param=place,
        )


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _in_segment(data: bytes) -> Segment:
    segment = Segment.create("neuron-image-file", max(1, len(data)))
    left = memoryview(data)
    try:
        while left:  # unlike a copy into the mapping this lets other threads run
            left = left[os.pwrite(segment.fd, left, len(data) - len(left)) :]
    except OSError as ex:
        segment.close()
        raise _overloaded(f"there is no memory for its file: {ex.strerror}") from ex
    return segment


def _close_results(job: "asyncio.Task[list[ReadImage]]") -> None:
    if not job.cancelled() and job.exception() is None:
        close_images(job.result())


def _close_result(storing: "asyncio.Future[Segment]") -> None:
    if not storing.cancelled() and storing.exception() is None:
        storing.result().close()


def _failed(status: int) -> CortexError:
    match -status:
        case signal.SIGPROF:
            return InvalidRequest("cannot read the image: it takes too long; make it smaller")
        case signal.SIGSEGV | signal.SIGABRT | signal.SIGBUS | signal.SIGILL | signal.SIGFPE:
            return InvalidRequest("cannot read the image: decoding it broke; send another file")
        case signal.SIGKILL:
            return _overloaded("the host has no memory for it")
        case _:
            return InternalError(
                f"cannot read the image: the image process ended with status {status}"
            )


def _at(error: CortexError, place: str) -> CortexError:
    """Return an error that says which image it is about."""
    info = error.info()
    message = info.message.replace("cannot read the image", f"cannot read the image {place}", 1)
    return error_from_info(
        ErrorInfo(
            code=info.code,
            message=message,
            param=place if isinstance(error, InvalidRequest) else info.param,
            retry_after_s=info.retry_after_s,
        )
    )


def _overloaded(why: str) -> Overloaded:
    return Overloaded(f"cannot read the image: {why}; retry later", retry_after_s=RETRY_AFTER_S)
