"""The devices of this host, found and measured through NVML, without torch.

`Devices.discover` runs once at start, in the main thread, before any actor is spawned. A host
without a usable NVIDIA device has one device, `cpu`, and says why there is no other. What
`CUDA_VISIBLE_DEVICES` leaves out counts as not there; see `visible_devices`. A GPU that is divided
into MIG instances is as many devices, `cuda-N-M`.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pynvml

from cortex_core.errors import ConfigError
from cortex_core.ids import DeviceName
from cortex_core.logs import kv
from cortex_core.neuron_api import DeviceInfo
from cortex_core.sizes import MIB
from neurond.host import host_memory

_log = logging.getLogger(__name__)
CPU = DeviceName("cpu")
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
BFLOAT16_MIN_MAJOR = 8

T = TypeVar("T")


class DeviceSample(msgspec.Struct, frozen=True):
    """A device at one moment. None where the device does not tell."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    utilization_pct: int | None = None
    temp_c: int | None = None


class Devices:
    """What was found, and how it is measured.

    Attributes:
        found: the devices to run actors on, in order of index.
        cuda_version: of the driver, as `13.0`; None without one.
        driver_version: None without a driver.
        cuda_unavailable_reason: why there is no CUDA device; None where there is one.
    """

    def __init__(
        self,
        found: Sequence[DeviceInfo],
        *,
        cuda_version: str | None = None,
        driver_version: str | None = None,
        cuda_unavailable_reason: str | None = None,
    ) -> None:
        self.found = list(found)
        self.cuda_version = cuda_version
        self.driver_version = driver_version
        self.cuda_unavailable_reason = cuda_unavailable_reason

    @classmethod
    def discover(cls, wanted: Sequence[DeviceName] = ()) -> "Devices":
        """Find the host's devices; `wanted` keeps only those, and may name `cpu` beside CUDA.

        Raises:
            ConfigError: a wanted device is not there.
        """
        cuda, reason = _discover_cuda()
        devices = cuda or cls([_cpu()], cuda_unavailable_reason=reason)
        return devices.only(wanted) if wanted else devices

    def only(self, wanted: Sequence[DeviceName]) -> "Devices":
        """Return these devices without those that are not `wanted`.

        Raises:
            ConfigError: a wanted device is not there.
        """
        known = {device.id: device for device in (_cpu(), *self.found)}
        missing = [name for name in wanted if name not in known]
        if missing:
            raise ConfigError(
                f"cannot use device {missing[0]!r}: this host has {', '.join(sorted(known))}"
                + (f" ({self.cuda_unavailable_reason})" if self.cuda_unavailable_reason else ""),
                param="devices",
            )
        return Devices(
            [known[name] for name in dict.fromkeys(wanted)],
            cuda_version=self.cuda_version,
            driver_version=self.driver_version,
            cuda_unavailable_reason=self.cuda_unavailable_reason,
        )

    def measure(self, device: DeviceInfo) -> DeviceSample:
        """Measure one device now; about a millisecond. A device that is lost has no free memory."""
        if device.kind == "cpu":
            memory = host_memory()
            used = memory.total_bytes - memory.free_bytes
            return DeviceSample(memory.total_bytes, used, memory.free_bytes)
        try:
            return _measure_cuda(device)
        except pynvml.NVMLError as ex:
            _log.warning("device not measured", extra=kv(device=device.id, cause=ex))
            total = device.vram_total_mb * MIB
            return DeviceSample(total, total, 0)


def _cpu() -> DeviceInfo:
    return DeviceInfo(
        index=0,
        name=_cpu_name(),
        vram_total_mb=host_memory().total_bytes // MIB,
        id=CPU,
        kind="cpu",
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - read line by line
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Model"):
                    return value.strip()
    except OSError as ex:
        _log.debug("processor not named", extra=kv(cause=ex))
    return "CPU"


def computes_bfloat16(device: DeviceInfo) -> bool:
    """Tell whether a CUDA device has instructions for bfloat16; older ones emulate it slowly."""
    major, _, _ = (device.compute_capability or "").partition(".")
    return major.isdecimal() and int(major) >= BFLOAT16_MIN_MAJOR


def torch_has_cuda() -> bool:
    """Tell whether the torch that actors will import is built with CUDA, without importing it."""
    spec = importlib.util.find_spec("torch")
    folders = spec.submodule_search_locations if spec is not None else None
    return any(Path(folder, "lib", "libtorch_cuda.so").exists() for folder in folders or ())


class Gpu(msgspec.Struct, frozen=True):
    """A GPU in NVML's order, and the devices on it: itself, or the instances it is divided into.

    One that cannot be asked has none, and says why.
    """

    uuid: str | None
    devices: list[DeviceInfo]
    error: str | None = None


def _discover_cuda() -> tuple[Devices | None, str | None]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as ex:
        return None, f"NVML does not start: {ex}"
    try:
        count = pynvml.nvmlDeviceGetCount()
        if count == 0:
            return None, "the NVIDIA driver lists no device"
        if not torch_has_cuda():
            return None, f"the driver lists {count} devices, but PyTorch is built without CUDA"
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        gpus = [_gpu(index) for index in range(count)]
        found = visible_devices(os.environ.get(VISIBLE_VARIABLE), gpus)
        if not found:
            return None, _why_none(gpus)
        driver = _word(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as ex:
        return None, f"NVML cannot list devices: {ex}"
    return Devices(
        found,
        cuda_version=f"{version // 1000}.{version % 1000 // 10}",
        driver_version=driver,
    ), None


def visible_devices(variable: str | None, gpus: Sequence[Gpu]) -> list[DeviceInfo]:
    """Return the devices, in NVML's order, that CUDA_VISIBLE_DEVICES lets be used.

    As in CUDA, it lists indices or beginnings of UUIDs, and ends at the first word that names no
    device; indices are those of `CUDA_DEVICE_ORDER=PCI_BUS_ID`, which are NVML's. Who names a GPU
    means all its instances.
    """
    everything = [device for gpu in gpus for device in gpu.devices]
    if variable is None:
        return everything
    chosen: set[DeviceName] = set()
    for word in variable.split(","):
        named = _named(word.strip(), gpus)
        if not named:
            break
        chosen.update(device.id for device in named)
    return [device for device in everything if device.id in chosen]


def _named(word: str, gpus: Sequence[Gpu]) -> list[DeviceInfo]:
    if word.isdecimal():
        return gpus[int(word)].devices if int(word) < len(gpus) else []
    whole = [gpu.devices for gpu in gpus if word and (gpu.uuid or "").startswith(word)]
    parts = [
        [device]
        for gpu in gpus
        for device in gpu.devices
        if word and device.uuid != gpu.uuid and (device.uuid or "").startswith(word)
    ]
    named = whole + parts
    return named[0] if len(named) == 1 else []


def _why_none(gpus: Sequence[Gpu]) -> str:
    errors = [gpu.error for gpu in gpus if gpu.error is not None]
    if errors:
        return f"NVML cannot list devices: {errors[0]}"
    if not any(gpu.devices for gpu in gpus):
        return "every device is in MIG mode and has no instance"
    return f"{VISIBLE_VARIABLE} names none of the {len(gpus)} devices of this host"


def _gpu(index: int) -> Gpu:
    """Ask one GPU; its neighbours can be used without it."""
    try:
        return _asked_gpu(index)
    except pynvml.NVMLError as ex:
        _log.error("device left out", extra=kv(device=f"cuda-{index}", cause=ex))
        return Gpu(None, [], str(ex))


def _asked_gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    uuid = _told(lambda: _word(pynvml.nvmlDeviceGetUUID(handle)))
    name = f"cuda-{index}"
    parts = {name: handle}
    mode = _told(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0])
    if mode == pynvml.NVML_DEVICE_MIG_ENABLE:
        parts = {f"{name}-{place}": part for place, part in enumerate(_instances(handle))}
    devices = [
        DeviceInfo(
            index=index,
            name=_word(pynvml.nvmlDeviceGetName(part)),
            vram_total_mb=_cuda_memory(part).total_bytes // MIB,
            id=DeviceName(part_name),
            kind="cuda",
            compute_capability=f"{major}.{minor}",
            uuid=uuid if part is handle else _word(pynvml.nvmlDeviceGetUUID(part)),
        )
        for part_name, part in parts.items()
    ]
    return Gpu(uuid, devices)


def _instances(handle: Any) -> list[Any]:
    """Return the MIG instances of a GPU; places that none has are left out."""
    found = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(pynvml.NVMLError_NotFound):
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
    return found


def _cuda_memory(handle: Any) -> DeviceSample:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        # Devices that share the host's memory, such as GB10, have none of their own.
        host = host_memory()
        return DeviceSample(host.total_bytes, host.total_bytes - host.free_bytes, host.free_bytes)
    return DeviceSample(int(memory.total), int(memory.used), int(memory.free))


def _measure_cuda(device: DeviceInfo) -> DeviceSample:
    if device.uuid is None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index)
    else:
        handle = pynvml.nvmlDeviceGetHandleByUUID(device.uuid)
    memory = _cuda_memory(handle)
    busy = _told(lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    heat = _told(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)))
    return DeviceSample(memory.total_bytes, memory.used_bytes, memory.free_bytes, busy, heat)


def _told(ask: Callable[[], T]) -> T | None:
    """Return the answer; None where the device, or its driver, has none of the kind."""
    try:
        return ask()
    except (
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_InvalidArgument,  # of an instance that is asked what its GPU knows
        pynvml.NVMLError_FunctionNotFound,
    ):
        return None


def _word(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
