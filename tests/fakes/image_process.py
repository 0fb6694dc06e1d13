"""An image process that does what the name of the model's folder says."""

import os
import signal
import socket
import sys
import time

import numpy as np

from cortex_core.ipc.segment import Segment
from neurond.images.arrays import store_arrays
from neurond.images.messages import ImageRead, ReadImageJob
from neurond.images.process import ImageWorker, serve
from neurond.images.read_image import FEATURE_MARK


class ObedientWorker(ImageWorker):
    def __init__(self) -> None:
        super().__init__()
        self._num_read = 0

    def read(self, job: ReadImageJob, data: bytes) -> tuple[ImageRead, Segment | None]:
        match job.folder:
            case "/break":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "/spin":
                signal.setitimer(signal.ITIMER_PROF, 0.05)
                while True:
                    pass
            case "/sleep":
                time.sleep(600)
            case "/exit":
                os._exit(3)
        self._num_read += 1
        keys = {"/pid": str(os.getpid()).encode(), "/count": b"%d" % self._num_read}
        stored = store_arrays({"pixel_values": np.frombuffer(data, np.uint8)})
        read = ImageRead(
            key=keys.get(job.folder, data[:1] * 32),
            places=stored.places,
            size_bytes=stored.segment.size_bytes,
            replacement=f"<{FEATURE_MARK * len(data)}>",
        )
        return read, stored.segment


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), ObedientWorker())
