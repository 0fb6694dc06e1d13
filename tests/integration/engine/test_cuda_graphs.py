"""How torch's CUDA graphs are used, with stand-ins that note each call in order."""

import gc
import threading
import weakref
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from neurond.engine.cuda_graphs import CudaGraphs, Recording
from neurond.engine.decode_graphs import NotRecordable
from neurond.engine.device import CudaDevice

CUDA = torch.device("cuda", 0)
OUTPUT = torch.ones(2)


@pytest.fixture
def calls(monkeypatch) -> list:
    noted: list = []

    class Stream:
        def __init__(self, device=None):
            assert device == CUDA

        def wait_stream(self, other):
            noted.append(f"wait for {other}")

        def synchronize(self):
            noted.append("synchronize stream")

    class Graph:
        def capture_begin(self, pool, capture_error_mode):
            noted.append(f"begin {pool} {capture_error_mode}")

        def capture_end(self):
            noted.append("end")

        def replay(self):
            noted.append("replay")

    @contextmanager
    def on(stream):
        assert isinstance(stream, Stream)
        noted.append("on stream")
        yield
        noted.append("off stream")

    for name, stand_in in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "stream": on,
        "graph_pool_handle": lambda: "pool",
        "current_stream": lambda device: "current",
        "synchronize": lambda device: noted.append("synchronize device"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return noted


def recorder() -> CudaGraphs:
    return CudaGraphs(CUDA, Recording(), torch.cuda.Stream(CUDA))


def test_a_step_is_computed_once_and_then_recorded_without_binding_other_threads(calls):
    def compute() -> torch.Tensor:
        calls.append("compute")
        return OUTPUT

    graph = recorder().record(compute)
    assert calls == [
        "wait for current",
        "on stream",
        "compute",
        "synchronize stream",
        "begin pool thread_local",
        "compute",
        "end",
        "off stream",
    ]
    assert graph.output is OUTPUT
    graph.replay()
    assert calls[-1] == "replay"


def test_nobody_waits_for_the_device_while_a_step_is_recorded(calls, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty cache"))
    device = CudaDevice("cuda-0", None)
    settled: list[threading.Thread] = []

    def compute() -> torch.Tensor:
        if "begin pool thread_local" in calls:
            settled.append(threading.Thread(target=device.settle))
            settled[0].start()
            settled[0].join(0.05)
            assert settled[0].is_alive()
        return OUTPUT

    device.recorder().record(compute)
    settled[0].join(10)
    assert calls.index("end") < calls.index("synchronize device") < calls.index("empty cache")


def test_a_stream_is_one_models_and_used_again_when_that_is_gone(calls, monkeypatch):
    made: list = []

    class Stream(torch.cuda.Stream):
        def __init__(self, device):
            super().__init__(device)
            made.append(self)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    device = CudaDevice("cuda-0", None)
    served = [device.recorder().record(lambda: OUTPUT)]
    assert len(made) == 1
    for _ in range(40):
        other = device.recorder().record(lambda: OUTPUT)
        assert len(made) == 2  # torch has 32, one of which is the engines'
        del other
    served.append(device.recorder().record(lambda: OUTPUT))
    served.append(device.recorder().record(lambda: OUTPUT))
    assert len(made) == 3


def failing_at(call: int, error: Exception):
    count = 0

    def compute() -> torch.Tensor:
        nonlocal count
        count += 1
        if count == call:
            raise error
        return OUTPUT

    return compute


def test_what_cannot_be_recorded_is_told_when_the_device_is_sound(calls):
    waits = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    with pytest.raises(NotRecordable, match="not permitted"):
        recorder().record(failing_at(2, waits))
    assert calls[-2:] == ["end", "synchronize device"]


@pytest.fixture
def broken_off(calls, monkeypatch) -> None:
    """As torch does: who waits breaks the recording off, and its end is an error then."""

    def capture_end(_graph):
        raise torch.AcceleratorError("CUDA error: operation failed due to a previous error")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", capture_end)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        told = partial(lambda name, *args: calls.append((name, *args)), name)
        monkeypatch.setattr(torch._C, name, told, raising=False)


WAITS = "CUDA error: operation not permitted when stream is capturing"


@pytest.mark.usefixtures("broken_off")
def test_a_recording_that_was_broken_off_leaves_torchs_allocator_as_it_was(calls):
    with pytest.raises(NotRecordable, match="not permitted"):
        recorder().record(failing_at(2, torch.AcceleratorError(WAITS)))
    ended = [("_cuda_endAllocateToPool", 0, "pool"), ("_cuda_releasePool", 0, "pool")]
    assert [call for call in calls if isinstance(call, tuple)] == ended


@pytest.mark.usefixtures("broken_off")
def test_a_graph_that_was_broken_off_lives_as_long_as_its_device(monkeypatch):
    """torch's allocator of pinned memory goes on asking it, by its address."""
    living: weakref.WeakSet = weakref.WeakSet()

    class Graph(torch.cuda.CUDAGraph):
        def __init__(self):
            living.add(self)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    device = CudaDevice("cuda-0", None)
    for _ in range(2):
        with pytest.raises(NotRecordable):
            device.recorder().record(failing_at(2, torch.AcceleratorError(WAITS)))
    gc.collect()
    assert len(living) == 2
    monkeypatch.setattr(Graph, "capture_end", lambda _graph: None)
    recorded = device.recorder().record(lambda: OUTPUT)
    assert len(living) == 3
    del recorded
    gc.collect()
    assert len(living) == 2


def test_a_device_that_is_lost_meanwhile_is_told_as_that(calls, monkeypatch):
    def lost(device):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        recorder().record(failing_at(1, RuntimeError("unspecified")))


def test_memory_that_runs_out_is_no_question_of_recording(calls):
    with pytest.raises(torch.OutOfMemoryError):
        recorder().record(failing_at(2, torch.OutOfMemoryError("CUDA out of memory")))
    assert "end" in calls
