"""Recording and replaying steps on a CUDA device."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from neurond.engine.decode_graphs import NotRecordable


@dataclass(slots=True)
class Recording:
    """What recordings of one device share; it lives as long as the process uses the device."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while a step is recorded: nobody may wait for the whole device then."""
    broken: list[torch.cuda.CUDAGraph] = field(default_factory=list)
    """Graphs of which torch's allocator of pinned memory never learns that their recording is over.

    It asks each of them, by its address, whether what it allocates is theirs. While they live the
    answer is no; of the memory of one that is gone anything could come.
    """


class CudaGraphs:
    """Records in the thread that calls, while others compute. One for each model.

    Memory that recorded steps use is a pool of their own, which all of them share: so they are
    replayed one after another, and what one returns is gone with the next. What cuBLAS works in
    goes by the stream of a recording: no other model's may be made there while these are replayed.
    """

    def __init__(
        self, device: torch.device, recording: Recording, stream: torch.cuda.Stream
    ) -> None:
        """`recording` is the device's, for all its models; `stream` this one's, and its graphs'."""
        self._device = device
        self._recording = recording
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Callable[[], torch.Tensor]) -> "CudaGraph":
        """See `Recorder.record`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(self._stream):
                # Once without recording: kernels are loaded and libraries opened by their first
                # use, which a recording does not allow.
                compute()
                self._stream.synchronize()
                with self._recording.turn:
                    return self._record(compute)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as ex:
            torch.cuda.synchronize(self._device)  # raises what the device itself has to say
            raise NotRecordable(str(ex)) from ex

    def _record(self, compute: Callable[[], torch.Tensor]) -> "CudaGraph":
        graph = torch.cuda.CUDAGraph()
        # Engines of other models go on in other threads; only this one is held to what can be
        # recorded.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            output = compute()
        except BaseException:
            with suppress(RuntimeError):  # what went wrong says more than that it did
                self._end(graph)
            raise
        self._end(graph)
        return CudaGraph(self, graph, output)

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            # What waited has broken the recording off. torch's allocators then go on as if there
            # were one; that of the device would give nothing back any more.
            self._recording.broken.append(graph)
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(self._device.index, self._pool)  # noqa: SLF001 - no public way
                torch._C._cuda_releasePool(self._device.index, self._pool)  # noqa: SLF001
            raise


class CudaGraph:
    """See `RecordedStep`. Keeps what it was recorded by, and so the stream of that."""

    def __init__(
        self, recorder: CudaGraphs, graph: torch.cuda.CUDAGraph, output: torch.Tensor
    ) -> None:
        self._recorder = recorder
        self._graph = graph
        self.output = output

    def replay(self) -> None:
        """Submit the step to the stream of the calling thread."""
        self._graph.replay()
