"""A whole node over the CUDA devices of this host: memory that comes back, devices that break."""

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from cortex_core.canonical import SamplingParams
from cortex_core.errors import DeviceFailed, OutOfMemory
from cortex_core.ids import ModelId
from cortex_core.neuron_api import LoadRequest, ModelProfile, UnloadRequest
from cortex_core.sizes import MIB
from neurond.actor.backend import OpenedDevice
from neurond.actor.torch_backend import TorchBackend
from neurond.devices import Devices
from neurond.engine.batch import ScheduledBatch
from neurond.engine.runner import ModelRunner
from neurond.protocol import Configure
from tests.fakes.actor_node import Node, collect, ignore_progress, tokens_of
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import COMMON
from tests.fakes.tiny_nodes import PROMPT, add_tiny

pytestmark = pytest.mark.gpu

GREEDY = SamplingParams(temperature=0.0)
MARGIN_BYTES = 64 * MIB
LARGE = COMMON | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 6,
    "initializer_range": 0.02,
}


def used_bytes() -> int:
    devices = Devices.discover()
    return devices.measure(devices.found[0]).used_bytes


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    started = make_node()
    await started.start()
    return started


def add_large(node: Node) -> ModelId:
    """Make a model whose weights, in 16 bits, are twice `MARGIN_BYTES`."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(**LARGE))
    prepared = prepare_model(model, node.library.root / "large")
    assert 2 * prepared.num_parameters > 2 * MARGIN_BYTES
    return node.library.adopt(prepared)


async def come_and_go(node: Node, model_id: ModelId) -> None:
    await node.load(model_id)
    said = await collect(node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY))
    assert len(tokens_of(said)) == 6
    await node.supervisor.unload(UnloadRequest(model_id))


async def test_models_come_and_go_and_leave_no_memory_behind(node: Node) -> None:
    small, _ = add_tiny(node, "llama")
    large = add_large(node)
    await come_and_go(node, small)  # what libraries take stays, and is no model's
    before = used_bytes()
    for _ in range(5):
        await come_and_go(node, small)
        await come_and_go(node, large)
    assert used_bytes() - before < MARGIN_BYTES


async def test_a_load_that_does_not_fit_fails_alone(node: Node) -> None:
    model_id, _ = add_tiny(node, "llama")
    large, _ = add_tiny(node, "qwen3")
    await node.load(model_id)
    profile = ModelProfile(kv_cache_mb=10**6)
    with pytest.raises(OutOfMemory):
        await node.supervisor.load(LoadRequest(large, profile=profile), ignore_progress)
    said = await collect(node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY))
    assert len(tokens_of(said)) == 6
    assert node.restarts == 0


async def test_a_broken_context_is_replaced(make_node: Callable[..., Node]) -> None:
    node = make_node(backend="tests.gpu.test_cuda_actor:AssertingBackend")
    await node.start()
    model_id, _ = add_tiny(node, "llama")
    await node.load(model_id)
    with pytest.raises(DeviceFailed):
        await collect(node.submit(model_id, [1] * 7, max_tokens=6, sampling=GREEDY))
    await node.load(model_id)
    said = await collect(node.submit(model_id, [1] * 5, max_tokens=6, sampling=GREEDY))
    assert len(tokens_of(said)) == 6
    assert node.restarts == 1


class AssertingBackend(TorchBackend):
    """On it a step of seven tokens reads beyond a tensor's end, on the device."""

    def open(self, configure: Configure) -> OpenedDevice:
        execute = ModelRunner.execute

        def asserting(runner: ModelRunner, batch: ScheduledBatch) -> object:
            if batch.num_tokens == 7:
                beyond = torch.full((1,), 5, device="cuda")
                torch.zeros(1, device="cuda")[beyond].tolist()
            return execute(runner, batch)

        ModelRunner.execute = asserting
        return super().open(configure)
