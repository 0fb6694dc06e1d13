"""Devices as NVML tells of them, over a stub of its binding."""

from typing import Any

import pynvml
import pytest

from cortex_core.errors import ConfigError
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import DeviceInfo
from neurond.devices import CPU, Devices

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
