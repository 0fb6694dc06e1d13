"""What an actor's process sees of the host's GPUs, set before torch could be imported."""

from collections.abc import Callable

import pytest

from cortex_core.ids import DeviceName
from cortex_core.neuron_api import DeviceInfo
from neurond.devices import CPU, Devices
from tests.fakes.actor_node import Node

FOUND = [
    DeviceInfo(0, "NVIDIA H100", 1024, DeviceName("cuda-0"), kind="cuda", uuid="GPU-aa"),
    DeviceInfo(3, "NVIDIA GB10", 1024, DeviceName("cuda-3"), kind="cuda"),
    DeviceInfo(0, "CPU", 1024, CPU),
]


async def told(make_node: Callable[..., Node]) -> dict[str, str | None]:
    node = make_node(devices=Devices(FOUND), backend="tests.fakes.fake_engine:TellingBackend")
    await node.start()
    return {str(d.id): d.attention_backend for d in node.supervisor.discovery().devices}


async def test_an_actor_sees_its_own_device_alone(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert await told(make_node) == {
        "cuda-0": "'GPU-aa' 'expandable_segments:True'",
        "cuda-3": "'3' 'expandable_segments:True'",
        "cpu": "'' 'expandable_segments:True'",
    }


async def test_the_operators_word_on_torchs_allocator_holds(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    assert (await told(make_node))["cuda-0"] == "'GPU-aa' 'max_split_size_mb:512'"


async def test_so_does_their_word_on_the_allocators_of_all_devices(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:256")
    assert (await told(make_node))["cuda-0"] == "'GPU-aa' 'max_split_size_mb:256'"
