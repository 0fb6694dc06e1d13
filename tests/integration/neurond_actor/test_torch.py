"""The torch backend in a real actor process, with models made here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ModelLoadFailed
from cortex_core.neuron_api import UnloadRequest
from neurond.actor.torch_backend import TorchBackend
from tests.fakes.actor_node import Node, collect, tokens_of
from tests.fakes.tiny_nodes import PROMPT, add_tiny

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    started = make_node(backend="neurond.actor.torch_backend:TorchBackend")
    await started.start()
    return started


def truncate(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])


async def test_two_models_are_served_at_once_by_one_device(node: Node) -> None:
    (llama, said_by_llama), (qwen, said_by_qwen) = add_tiny(node, "llama"), add_tiny(node, "qwen3")
    await node.load(llama)
    await node.load(qwen)

    streams = [
        node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY) for model_id in (llama, qwen)
    ]

    assert tokens_of(await collect(streams[0])) == said_by_llama
    assert tokens_of(await collect(streams[1])) == said_by_qwen
    (device,) = node.supervisor.discovery().devices
    assert device.attention_backend == "torch-reference"
    assert node.supervisor.model(llama).vram_used_mb > 0
    await node.supervisor.unload(UnloadRequest(llama))
    again = node.submit(qwen, PROMPT, max_tokens=6, sampling=GREEDY)
    assert tokens_of(await collect(again)) == said_by_qwen


async def test_a_truncated_file_fails_the_load_and_nothing_else(node: Node) -> None:
    model_id, said = add_tiny(node, "llama")
    broken, _ = add_tiny(node, "qwen3")
    await node.load(model_id)
    truncate(node.library.folder(broken))

    with pytest.raises(ModelLoadFailed):
        await node.load(broken)

    stream = node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY)
    assert tokens_of(await collect(stream)) == said
    assert node.restarts == 0


def test_errors_are_told_apart() -> None:
    backend = TorchBackend()
    exhausted = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    broken = torch.AcceleratorError("CUDA error: device-side assert triggered")
    shapes = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    host = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    kernel = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
    errors = (exhausted, host, broken, shapes, kernel)

    codes = [backend.describe(error).code for error in errors]

    assert codes == ["out_of_memory", "out_of_memory", *["internal_error"] * 3]
    poisoned = [backend.is_poisoned(error) for error in errors]
    assert poisoned == [False, False, True, False, True]


@pytest.mark.parametrize(
    "error",
    [
        # Of pinned memory, of a graph or a module that is put on the device.
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_library_that_finds_no_memory_breaks_no_device(error: Exception) -> None:
    backend = TorchBackend()
    assert backend.describe(error).code == "out_of_memory"
    assert not backend.is_poisoned(error)
