"""Devices as NVML tells of them, over a stub of its binding."""

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from cortex_core.errors import ConfigError
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import DeviceInfo
from neurond.devices import CPU, VISIBLE_VARIABLE, Devices, visible_indices

LOST = DeviceInfo(0, "NVIDIA H100", 1024, DeviceName("cuda-0"), kind="cuda")


def raises(error: int) -> Any:
    def ask(*_args: object) -> None:
        raise pynvml.NVMLError(error)

    return ask


def test_a_host_without_nvml_has_a_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", raises(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))

    devices = Devices.discover()

    assert [(device.id, device.kind) for device in devices.found] == [("cpu", "cpu")]
    assert devices.found[0].vram_total_mb > 0
    assert devices.cuda_unavailable_reason == "NVML does not start: NVML Shared Library Not Found"


@pytest.mark.parametrize("broken", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion_v2", lambda: 13000)
    monkeypatch.delenv(VISIBLE_VARIABLE, raising=False)
    monkeypatch.setattr(pynvml, broken, raises(pynvml.NVML_ERROR_GPU_IS_LOST))

    devices = Devices.discover()

    assert [device.id for device in devices.found] == [CPU]
    assert devices.cuda_unavailable_reason is not None
    assert "GPU is lost" in devices.cuda_unavailable_reason


def test_a_driver_without_devices_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)

    assert Devices.discover().cuda_unavailable_reason == "the NVIDIA driver lists no device"


def test_a_device_that_is_lost_later_has_no_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", raises(pynvml.NVML_ERROR_GPU_IS_LOST))

    sample = Devices([LOST]).measure(LOST)

    assert (sample.total_bytes, sample.free_bytes) == (2**30, 0)


def test_devices_can_be_chosen_and_cpu_is_always_there() -> None:
    devices = Devices([LOST], cuda_version="13.0")

    chosen = devices.only([CPU, LOST.id, CPU])

    assert [device.id for device in chosen.found] == [CPU, LOST.id]
    assert chosen.cuda_version == "13.0"
    with pytest.raises(ConfigError, match="'cuda-7': this host has cpu, cuda-0"):
        devices.only([DeviceName("cuda-7")])


def test_host_memory_is_measured_for_a_cpu() -> None:
    devices = Devices.discover([CPU])

    sample = devices.measure(devices.found[0])

    assert 0 < sample.free_bytes < sample.total_bytes
    assert sample.used_bytes == sample.total_bytes - sample.free_bytes


@pytest.mark.parametrize(
    ("variable", "indices"),
    [
        ("1", [1]),
        ("2, 0", [0, 2]),
        ("GPU-ab1", [0]),
        ("GPU-cc00,1", [1, 2]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("GPU-", []),
        ("MIG-ab10", []),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(variable: str, indices: list[int]) -> None:
    assert visible_indices(variable, ["GPU-ab10", "GPU-ab20", "GPU-cc00"]) == indices


def test_devices_that_the_environment_hides_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion_v2", lambda: 13000)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "590.44")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda index: f"GPU-{index}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda index: (9, 0))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda index: "NVIDIA H100")
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda index: SimpleNamespace(total=8, used=1, free=7)
    )
    for variable, names in (("1", ["cuda-1"]), ("GPU-0", ["cuda-0"]), ("", ["cpu"])):
        monkeypatch.setenv(VISIBLE_VARIABLE, variable)
        assert [device.id for device in Devices.discover().found] == names
    reason = Devices.discover().cuda_unavailable_reason
    assert reason == "CUDA_VISIBLE_DEVICES names none of the 2 devices of this host"
    monkeypatch.delenv(VISIBLE_VARIABLE)
    assert [device.id for device in Devices.discover().found] == ["cuda-0", "cuda-1"]
