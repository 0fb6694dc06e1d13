"""The torch backend in a real actor process, with models made here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ModelLoadFailed
from cortex_core.ids import ModelId
from cortex_core.neuron_api import LoadRequest, ModelProfile, UnloadRequest
from neurond.actor.torch_backend import TorchBackend
from neurond.supervisor.streams import TokenStream
from tests.fakes.actor_node import Node, collect, ignore_progress, tokens_of
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import make_tiny_model

GREEDY = SamplingParams(temperature=0.0)
PROMPT = [5, 6, 7, 8, 9]


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    started = make_node(backend="neurond.actor.torch_backend:TorchBackend")
    await started.start()
    return started


def add(node: Node, name: str) -> tuple[ModelId, list[int]]:
    """Make a tiny model; return its id, and what transformers says after `PROMPT`."""
    reference = make_tiny_model(name)
    model_id = node.library.adopt(prepare_model(reference, node.library.root / name))
    with torch.inference_mode():
        tokens = reference.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=6,
            eos_token_id=None,
        )
    return model_id, tokens[0, len(PROMPT) :].tolist()


def truncate(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])


async def test_two_models_are_served_at_once_by_one_device(node: Node) -> None:
    (llama, said_by_llama), (qwen, said_by_qwen) = add(node, "llama"), add(node, "qwen3")
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
    model_id, said = add(node, "llama")
    broken, _ = add(node, "qwen3")
    await node.load(model_id)
    truncate(node.library.folder(broken))

    with pytest.raises(ModelLoadFailed):
        await node.load(broken)

    stream = node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY)
    assert tokens_of(await collect(stream)) == said
    assert node.restarts == 0


async def test_packed_weights_are_served_beside_torch_and_mapped_the_next_time(node: Node) -> None:
    (llama, _), (qwen, said_by_qwen) = add(node, "llama"), add(node, "qwen3")
    as_int8 = LoadRequest(llama, profile=ModelProfile(dtype="int8"))
    await node.supervisor.load(as_int8, ignore_progress)
    await node.load(qwen)

    def say() -> TokenStream:
        return node.submit(llama, PROMPT, max_tokens=6, sampling=GREEDY)

    packed, torchs = say(), node.submit(qwen, PROMPT, max_tokens=6, sampling=GREEDY)
    said = tokens_of(await collect(packed))
    assert len(said) == 6
    assert tokens_of(await collect(torchs)) == said_by_qwen
    weights_id = node.supervisor.model(llama).weights_id
    assert weights_id is not None
    assert "-int8-" in weights_id

    (file,) = node.library.folder(llama).glob("packed/*.bin")
    made_at = file.stat().st_mtime_ns
    await node.supervisor.unload(UnloadRequest(llama))
    await node.supervisor.load(as_int8, ignore_progress)
    assert file.stat().st_mtime_ns == made_at
    assert tokens_of(await collect(say())) == said


async def test_a_model_without_a_plan_is_told_how_it_is_served(node: Node) -> None:
    experts, _ = add(node, "qwen3-moe")
    with pytest.raises(ModelLoadFailed, match=r"as int4: .*leave dtype out of its profile"):
        await node.supervisor.load(
            LoadRequest(experts, profile=ModelProfile(dtype="int4")), ignore_progress
        )
    await node.load(experts)


def test_errors_are_told_apart() -> None:
    backend = TorchBackend()
    exhausted = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    broken = torch.AcceleratorError("CUDA error: device-side assert triggered")
    shapes = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    host = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    codes = [backend.describe(error).code for error in (exhausted, host, broken, shapes)]

    assert codes == ["out_of_memory", "out_of_memory", "internal_error", "internal_error"]
    poisoned = [backend.is_poisoned(error) for error in (exhausted, host, broken, shapes)]
    assert poisoned == [False, False, True, False]
