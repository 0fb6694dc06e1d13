"""Embedding requests in a real actor process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from cortex_core.errors import CortexError, DeviceFailed, InvalidRequest, ModelNotLoaded
from cortex_core.ids import ModelId, RequestId
from cortex_core.neuron_api import UnloadRequest
from neurond.models.pooling import pool
from neurond.sources.prepared import Pooling, PreparedModel
from neurond.stream_items import Admitted, ChoiceFinished, StreamItem, Vector
from neurond.supervisor.jobs import EmbedJob
from neurond.supervisor.streams import TokenStream
from tests.fakes.actor_node import Node, collect, finishes_of, tokens_of, until_stuck
from tests.fakes.fake_engine import BROKEN, HANG
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import make_tiny_model
from tests.fakes.waiting import wait_until_async

MEAN = Pooling("mean", normalize=True)
INPUTS = [[5, 6, 7, 8, 9], [10], [11, 12]]


def embed(
    node: Node, model_id: ModelId, inputs: list[list[int]], dimensions: int | None = None
) -> TokenStream:
    return node.supervisor.submit(
        EmbedJob(request_id=RequestId("r"), model_id=model_id, inputs=inputs, dimensions=dimensions)
    )


def vectors_of(items: list[StreamItem]) -> NDArray[np.float32]:
    found = {item.input_index: item.vector for item in items if isinstance(item, Vector)}
    return np.stack([np.frombuffer(found[index], "<f4") for index in range(len(found))])


@pytest.fixture
async def torch_node(make_node: Callable[..., Node]) -> Node:
    started = make_node(backend="neurond.actor.torch_backend:TorchBackend")
    await started.start()
    return started


def add_bert(root: Path) -> tuple[BertModel, PreparedModel]:
    torch.manual_seed(3)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=320, num_attention_heads=4, initializer_range=0.2, **sizes)
    model = BertModel(config).eval()
    return model, prepare_model(model, root / "bert", capabilities=("embeddings",), pooling=MEAN)


async def test_an_encoder_serves_beside_a_model_that_generates(torch_node: Node) -> None:
    node = torch_node
    model, manifest = add_bert(node.library.root)
    bert = node.library.adopt(manifest)
    llama = node.library.adopt(prepare_model(make_tiny_model("llama"), node.library.root / "llama"))
    await node.load(bert)
    await node.load(llama)
    telling = node.submit(llama, [5, 6], max_tokens=20)

    found = vectors_of(await collect(embed(node, bert, INPUTS)))

    with torch.inference_mode():
        states = [model(torch.tensor([ids])).last_hidden_state[0] for ids in INPUTS]
    expected = np.stack([pool(each.numpy(), MEAN) for each in states])
    assert np.allclose(found, expected, atol=1e-5)
    assert len(tokens_of(await collect(telling))) == 20
    short = vectors_of(await collect(embed(node, bert, INPUTS, dimensions=16)))
    shortened = np.stack([pool(each.numpy(), MEAN, 16) for each in states])
    assert np.allclose(short, shortened, atol=1e-5)
    # A decoder's states are pooled with the same weights that generate.
    assert vectors_of(await collect(embed(node, llama, INPUTS))).shape == (3, 64)

    view = node.supervisor.model(bert)
    assert view.capabilities == ["embeddings"]
    assert view.embedding is not None
    assert view.embedding.dimensions == 64
    assert "embeddings" in node.supervisor.model(llama).capabilities
    with pytest.raises(InvalidRequest, match="cannot generate"):
        await collect(node.submit(bert, [5]))


async def test_thousands_of_vectors_pass_through_a_small_ring(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(ring_bytes=4096)
    await node.start()
    model_id = await node.loaded("vectors")
    inputs = [[number, *[1] * (number % 7)] for number in range(2048)]
    items = await collect(embed(node, model_id, inputs))
    assert vectors_of(items)[:, 0].tolist() == list(range(2048))
    assert isinstance(items[0], Admitted)
    assert items[-1] == ChoiceFinished(0, "stop")


async def test_a_step_that_fails_ends_embedding_alone(node: Node) -> None:
    model_id = await node.loaded("vectors")
    telling = node.submit(model_id, [10], max_tokens=500)
    with pytest.raises(CortexError, match="shapes cannot be multiplied"):
        await collect(embed(node, model_id, [[BROKEN]]))
    assert vectors_of(await collect(embed(node, model_id, [[7, 8]]))).tolist() == [[7, 2]]
    assert len(tokens_of(await collect(telling))) == 500
    assert node.restarts == 0


async def test_steps_that_compute_vectors_alone_bring_no_memory_with_them(node: Node) -> None:
    model_id = await node.loaded("vectors-fresh")
    steps = node.library.folder(model_id) / "steps"

    await collect(embed(node, model_id, [[1]]))
    await collect(node.submit(model_id, [10], max_tokens=2))

    await wait_until_async(lambda: steps.exists() and steps.read_text() == "2")
    await collect(embed(node, model_id, [[1]] * 3))
    await collect(node.submit(model_id, [10], max_tokens=1))
    await wait_until_async(lambda: steps.read_text() == "3")


async def test_a_model_without_vectors_says_so(node: Node) -> None:
    model_id = await node.loaded()
    with pytest.raises(InvalidRequest, match="cannot embed"):
        await collect(embed(node, model_id, [[1]]))


async def test_cancelled_requests_end_and_leave_nothing(node: Node) -> None:
    model_id = await node.loaded("vectors")
    streams = [embed(node, model_id, [[1]] * 500) for _ in range(10)]
    for stream in streams:
        stream.cancel()
    assert finishes_of(await collect(embed(node, model_id, [[1]]))) == {0: "stop"}
    await wait_until_async(lambda: node.in_flight(model_id) == 0)


async def test_unloading_ends_what_runs(paced_node: Node) -> None:
    model_id = await paced_node.loaded("vectors")
    # Nobody reads: it is held when its buffer is full. Each input fills a step.
    paused = embed(paced_node, model_id, [[1] * 512] * 2048)
    await wait_until_async(lambda: paused.paused)
    await paced_node.supervisor.unload(UnloadRequest(model_id, force=True))
    with pytest.raises(CortexError):
        await collect(paused)
    with pytest.raises(ModelNotLoaded):
        embed(paced_node, model_id, [[1]])


async def test_an_actor_that_dies_fails_its_requests_and_comes_back(node: Node) -> None:
    model_id = await node.loaded("vectors")
    stream = embed(node, model_id, [[HANG]])
    await until_stuck(node)
    psutil.Process(node.actor_pid).kill()
    with pytest.raises(DeviceFailed):
        await collect(stream)
    await node.load(model_id)
    assert vectors_of(await collect(embed(node, model_id, [[3]]))).tolist() == [[3, 1]]
