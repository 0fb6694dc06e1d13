"""What a CPU device does with a model when nobody says how, in a real actor process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ModelLoadFailed
from cortex_core.ids import ModelId
from cortex_core.neuron_api import (
    Dtype,
    LoadRequest,
    ModelProfile,
    NodeModel,
    Speculation,
    UnloadRequest,
)
from neurond.devices import CPU
from neurond.kernels.abi import ABI
from neurond.stream_items import Token
from tests.fakes.actor_node import Node, collect, ignore_progress, tokens_of
from tests.fakes.tiny_nodes import PROMPT, add_tiny
from tests.fakes.waiting import wait_until_async

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    started = make_node(backend=None)
    await started.start()
    return started


async def load(node: Node, model_id: ModelId, dtype: Dtype | None = None) -> NodeModel:
    request = LoadRequest(model_id, profile=ModelProfile(dtype=dtype))
    return (await node.supervisor.load(request, ignore_progress)).model


async def say(node: Node, model_id: ModelId) -> list[int]:
    stream = node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY)
    return tokens_of(await collect(stream))


def has_torch(node: Node) -> bool:
    return "libtorch" in Path(f"/proc/{node.actor_pid}/maps").read_text()


async def test_the_kernels_serve_what_nobody_has_named(node: Node) -> None:
    llama, said = add_tiny(node, "llama")
    (device,) = node.supervisor.discovery().devices
    assert device.kernels is not None
    assert device.kernels_unavailable_reason is None
    assert device.attention_backend == "cpu-kernels"
    assert device.kv_dtypes == ["bfloat16", "int8"]

    model = await load(node, llama)

    assert (model.dtype, model.kernels) == ("bfloat16", device.kernels), "its files are float32"
    assert model.kernels_unavailable_reason is None
    assert model.kv_dtype == "bfloat16"
    assert model.weights_id is not None
    assert model.weights_id.endswith(f"-bf16-{device.kernels}-r{ABI}")
    assert await say(node, llama) == said


async def test_a_second_load_maps_what_the_first_one_packed_and_needs_no_torch(node: Node) -> None:
    llama, _ = add_tiny(node, "llama")
    await load(node, llama, "int8")
    said = await say(node, llama)
    assert has_torch(node)
    (file,) = node.library.folder(llama).glob("packed/*.bin")
    made_at = file.stat().st_mtime_ns

    await node.supervisor.unload(UnloadRequest(llama))
    await load(node, llama, "int8")
    assert await say(node, llama) == said
    await node.supervisor.restart_device(CPU, None)
    await wait_until_async(lambda: node.supervisor.model(llama).status == "ready")
    assert await say(node, llama) == said
    assert not has_torch(node)
    assert file.stat().st_mtime_ns == made_at


async def test_weights_that_were_damaged_on_disk_are_packed_again(node: Node) -> None:
    llama, _ = add_tiny(node, "llama")
    await load(node, llama)
    said = await say(node, llama)
    await node.supervisor.unload(UnloadRequest(llama))
    (file,) = node.library.folder(llama).glob("packed/*.bin")
    blob = bytearray(file.read_bytes())
    blob[-1000] ^= 16
    file.write_bytes(blob)

    await load(node, llama)

    assert await say(node, llama) == said
    assert file.read_bytes() != blob
    assert node.restarts == 0


async def test_speculation_changes_no_token_and_is_counted(node: Node) -> None:
    llama, _ = add_tiny(node, "llama")
    sampling = SamplingParams(temperature=0.5, logit_bias={40: 30.0, 41: 30.0}, logprobs=2)

    async def answer(speculation: Speculation | None) -> list[Token]:
        profile = ModelProfile(dtype="int8", kv_dtype="int8", speculation=speculation)
        await node.supervisor.load(LoadRequest(llama, profile=profile), ignore_progress)
        assert node.supervisor.model(llama).kv_dtype == "int8"
        stream = node.submit(llama, PROMPT, max_tokens=40, sampling=sampling)
        return [item for item in await collect(stream) if isinstance(item, Token)]

    plain = await answer("off")
    assert node.supervisor.model(llama).drafts is None
    # The kernels speculate unless they are told not to.
    tried: tuple[Speculation | None, ...] = ("ngram", None)
    for speculation in tried:
        await node.supervisor.unload(UnloadRequest(llama))
        assert await answer(speculation) == plain
        await wait_until_async(lambda: node.supervisor.model(llama).drafts is not None)
        drafts = node.supervisor.model(llama).drafts
        assert drafts is not None
        assert 0 < drafts.accepted <= drafts.drafted


async def test_float32_is_torchs_beside_the_kernels(node: Node) -> None:
    (llama, _), (qwen, said_by_qwen) = add_tiny(node, "llama"), add_tiny(node, "qwen3")
    packed, torchs = await load(node, llama, "int4"), await load(node, qwen, "float32")

    assert packed.dtype == "int4"
    assert (torchs.dtype, torchs.kv_dtype, torchs.kernels) == ("float32", "float32", "torch")
    assert torchs.kernels_unavailable_reason is None
    streams = [
        node.submit(model_id, PROMPT, max_tokens=6, sampling=GREEDY) for model_id in (llama, qwen)
    ]
    assert len(tokens_of(await collect(streams[0]))) == 6
    assert tokens_of(await collect(streams[1])) == said_by_qwen


async def test_a_model_without_a_plan_is_served_by_torch_and_says_why(node: Node) -> None:
    experts, said = add_tiny(node, "qwen3-moe")

    with pytest.raises(ModelLoadFailed, match=r"as int4: .*leave dtype out of its profile"):
        await load(node, experts, "int4")
    model = await load(node, experts)
    assert (model.dtype, model.kernels) == ("float32", "torch")
    assert model.weights_id is not None
    assert model.weights_id.endswith("-float32-torch-reference")
    assert "layer 0 has mlp.experts." in (model.kernels_unavailable_reason or "")
    assert await say(node, experts) == said

    await node.supervisor.unload(UnloadRequest(experts))
    model = await load(node, experts, "bfloat16")
    assert (model.dtype, model.kernels) == ("bfloat16", "torch")
