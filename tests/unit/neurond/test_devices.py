"""Devices as NVML tells of them, over a stub of its binding."""

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from cortex_core.errors import ConfigError
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import DeviceInfo
from neurond import devices as module
from neurond.devices import CPU, VISIBLE_VARIABLE, Devices, Gpu, computes_bfloat16, visible_devices

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


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver with two devices, and a torch that is built with CUDA."""
    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlSystemGetDriverVersion": lambda: "590.44",
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
        "nvmlDeviceGetMigMode": lambda index: [0, 0],
        "nvmlDeviceGetCudaComputeCapability": lambda index: (9, 0),
        "nvmlDeviceGetName": lambda index: "NVIDIA H100",
        "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(total=8, used=1, free=7),
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(module, "torch_has_cuda", lambda: True)
    monkeypatch.delenv(VISIBLE_VARIABLE, raising=False)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("broken", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setattr(pynvml, broken, raises(pynvml.NVML_ERROR_GPU_IS_LOST))

    devices = Devices.discover()

    assert [device.id for device in devices.found] == [CPU]
    assert devices.cuda_unavailable_reason is not None
    assert "GPU is lost" in devices.cuda_unavailable_reason


@pytest.mark.usefixtures("driver")
def test_a_device_that_is_lost_leaves_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(index: int) -> int:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    assert [device.id for device in Devices.discover().found] == ["cuda-1"]


@pytest.mark.usefixtures("driver")
def test_a_torch_without_cuda_serves_from_the_cpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "torch_has_cuda", lambda: False)

    devices = Devices.discover()

    assert [device.id for device in devices.found] == [CPU]
    reason = "the driver lists 2 devices, but PyTorch is built without CUDA"
    assert devices.cuda_unavailable_reason == reason
    with pytest.raises(ConfigError, match="built without CUDA"):
        Devices.discover([DeviceName("cuda-0")])


@pytest.mark.usefixtures("driver")
def test_a_gpu_without_instances_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", lambda index: [1, 1])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMaxMigDeviceCount", lambda index: 0)
    reason = Devices.discover().cuda_unavailable_reason
    assert reason == "every device is in MIG mode and has no instance"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("7.5", False), ("8.0", True), ("9.0", True), ("12.0", True), (None, False)],
)
def test_turing_and_older_do_not_compute_bfloat16(
    capability: str | None, *, expected: bool
) -> None:
    device = DeviceInfo(0, "GPU", 1, DeviceName("cuda-0"), "cuda", capability)
    assert computes_bfloat16(device) is expected


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


def gpu(index: int, uuid: str, *instances: str) -> Gpu:
    names = {f"cuda-{index}-{place}": part for place, part in enumerate(instances)}
    return Gpu(
        uuid,
        [
            DeviceInfo(index, "GPU", 1, DeviceName(name), kind="cuda", uuid=part)
            for name, part in (names or {f"cuda-{index}": uuid}).items()
        ],
    )


GPUS = [gpu(0, "GPU-ab10"), gpu(1, "GPU-ab20"), gpu(2, "GPU-cc00", "MIG-d1", "MIG-d2")]


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ["cuda-0", "cuda-1", "cuda-2-0", "cuda-2-1"]),
        ("1", ["cuda-1"]),
        ("2, 0", ["cuda-0", "cuda-2-0", "cuda-2-1"]),
        ("GPU-ab1", ["cuda-0"]),
        ("GPU-cc00,1", ["cuda-1", "cuda-2-0", "cuda-2-1"]),
        ("MIG-d2,0", ["cuda-0", "cuda-2-1"]),
        ("MIG-d", []),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["cuda-0"]),
        ("0,7,1", ["cuda-0"]),
        ("GPU-", []),
        ("MIG-ab10", []),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(variable: str | None, names: list[str]) -> None:
    assert [device.id for device in visible_devices(variable, GPUS)] == names


@pytest.mark.usefixtures("driver")
def test_devices_that_the_environment_hides_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, names in (("1", ["cuda-1"]), ("GPU-0", ["cuda-0"]), ("", ["cpu"])):
        monkeypatch.setenv(VISIBLE_VARIABLE, variable)
        assert [device.id for device in Devices.discover().found] == names
    reason = Devices.discover().cuda_unavailable_reason
    assert reason == "CUDA_VISIBLE_DEVICES names none of the 2 devices of this host"
    monkeypatch.delenv(VISIBLE_VARIABLE)
    assert [device.id for device in Devices.discover().found] == ["cuda-0", "cuda-1"]
