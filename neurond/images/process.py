"""The image process: decodes what clients send, where it can do no harm.

`python -m neurond.images.process FD` serves the supervisor at the other end of the socket FD until
that closes. A file that takes too much time or memory, or breaks a library, ends the process by a
signal; the supervisor starts another.
"""

import hashlib
import os
import resource
import signal
import socket
import sys
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cortex_core.errors import CortexError, InternalError, InvalidRequest
from cortex_core.ipc.parent import signal_at_end_of_parent
from cortex_core.ipc.segment import Segment
from neurond.images.arrays import store_arrays
from neurond.images.messages import MAX_MESSAGE_BYTES, ImageRead, ReadImageJob
from neurond.images.read_image import FEATURE_MARK

if TYPE_CHECKING:
    from neurond.images.processor import ModelImageProcessor

CPU_S: Final = 20.0
"""Of one image."""
MEMORY_BYTES: Final = 6 << 30
MAX_PROCESSORS: Final = 4
"""Models whose processors are kept."""
KEY_BYTES: Final = 32


class ImageWorker:
    """Reads images for any number of models."""

    def __init__(self) -> None:
        self._processors: OrderedDict[str, ModelImageProcessor] = OrderedDict()

    def read(self, job: ReadImageJob, data: bytes) -> tuple[ImageRead, Segment | None]:
        """Return what became of a file, and the arrays, which are the caller's to close."""
        try:
            return self._read(job, data)
        except CortexError as ex:
            return ImageRead(error=ex.info()), None
        except MemoryError:
            error = InvalidRequest("cannot read the image: it takes too much memory")
            return ImageRead(error=error.info()), None
        except Exception as ex:  # noqa: BLE001 - whatever a library raises fails this image
            error_ = InternalError(f"cannot read the image: {type(ex).__name__}: {ex}")
            return ImageRead(error=error_.info()), None

    def _read(self, job: ReadImageJob, data: bytes) -> tuple[ImageRead, Segment | None]:
        from neurond.images.decoding import decode_image

        processor = self._processor(job.folder)
        # What was imported, and the processor, are not the image's doing.
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        try:
            seen = processor.process(decode_image(data, max_seen_pixels=job.max_seen_pixels))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        stored = store_arrays(seen.inputs)
        read = ImageRead(
            key=hashlib.blake2b(data, digest_size=KEY_BYTES).digest(),
            places=stored.places,
            size_bytes=stored.segment.size_bytes,
            replacement=seen.replacement.replace(processor.tokens.token, FEATURE_MARK),
        )
        return read, stored.segment

    def _processor(self, folder: str) -> "ModelImageProcessor":
        known = self._processors.get(folder)
        if known is None:
            from neurond.images.processor import ModelImageProcessor

            known = self._processors[folder] = ModelImageProcessor(Path(folder))
        self._processors.move_to_end(folder)
        while len(self._processors) > MAX_PROCESSORS:
            self._processors.popitem(last=False)
        return known


def serve(connection: socket.socket, worker: ImageWorker) -> None:
    """Answer jobs until the other end closes."""
    decoder = msgspec.msgpack.Decoder(ReadImageJob)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 1)
        if not message:
            return
        job = decoder.decode(message)
        file = Segment.attach(fds[0])
        data = bytes(file.buf[: job.size_bytes])
        file.close()
        read, segment = worker.read(job, data)
        socket.send_fds(
            connection, [msgspec.msgpack.encode(read)], [] if segment is None else [segment.fd]
        )
        if segment is not None:
            segment.close()


def main(arguments: list[str]) -> None:
    """Run the process."""
    signal_at_end_of_parent(signal.SIGKILL, os.getppid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the daemon ends it
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    # What takes seconds is in before the first image.
    import neurond.images.decoding
    import neurond.images.processor  # noqa: F401

    serve(socket.socket(fileno=int(arguments[0])), ImageWorker())


if __name__ == "__main__":
    main(sys.argv[1:])
