"""The devices of this host, found and measured through NVML, without torch.

`Devices.discover` runs once at start, in the main thread, before any actor is spawned. A host
without a usable NVIDIA device has one device, `cpu`, and says why there is no other. What
`CUDA_VISIBLE_DEVICES` leaves out counts as not there; see `visible_indices`.
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pynvml

from cortex_core.errors import ConfigError
from cortex_core.ids import DeviceName
from cortex_core.logs import kv
from cortex_core.neuron_api import MIB, DeviceInfo
from neurond.host import host_memory

_log = logging.getLogger(__name__)
CPU = DeviceName("cpu")
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"


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
            return _measure_cuda(device.index)
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


def _discover_cuda() -> tuple[Devices | None, str | None]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as ex:
        return None, f"NVML does not start: {ex}"
    try:
        count = pynvml.nvmlDeviceGetCount()
        if count == 0:
            return None, "the NVIDIA driver lists no device"
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        visible = _visible(count)
        if not visible:
            return None, f"{VISIBLE_VARIABLE} names none of the {count} devices of this host"
        found = [_cuda_info(index) for index in visible]
        driver = _word(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as ex:
        return None, f"NVML cannot list devices: {ex}"
    return Devices(
        found,
        cuda_version=f"{version // 1000}.{version % 1000 // 10}",
        driver_version=driver,
    ), None


def visible_indices(variable: str, uuids: Sequence[str]) -> list[int]:
    """Return which of the devices with `uuids`, in NVML's order, the variable lets be used.

    As in CUDA, it lists indices or beginnings of UUIDs, and ends at the first word that names no
    device; indices are those of `CUDA_DEVICE_ORDER=PCI_BUS_ID`, which are NVML's.
    """
    indices: set[int] = set()
    for word in variable.split(","):
        index = _named_index(word.strip(), uuids)
        if index is None:
            break
        indices.add(index)
    return sorted(indices)


def _named_index(word: str, uuids: Sequence[str]) -> int | None:
    if word.isdecimal():
        return int(word) if int(word) < len(uuids) else None
    named = [place for place, uuid in enumerate(uuids) if word and uuid.startswith(word)]
    return named[0] if len(named) == 1 else None


def _visible(count: int) -> list[int]:
    variable = os.environ.get(VISIBLE_VARIABLE)
    if variable is None:
        return list(range(count))
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    return visible_indices(variable, [_word(pynvml.nvmlDeviceGetUUID(one)) for one in handles])


def _cuda_info(index: int) -> DeviceInfo:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return DeviceInfo(
        index=index,
        name=_word(pynvml.nvmlDeviceGetName(handle)),
        vram_total_mb=_cuda_memory(handle).total_bytes // MIB,
        id=DeviceName(f"cuda-{index}"),
        kind="cuda",
        compute_capability=f"{major}.{minor}",
    )


def _cuda_memory(handle: Any) -> DeviceSample:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        # Devices that share the host's memory, such as GB10, have none of their own.
        host = host_memory()
        return DeviceSample(host.total_bytes, host.total_bytes - host.free_bytes, host.free_bytes)
    return DeviceSample(int(memory.total), int(memory.used), int(memory.free))


def _measure_cuda(index: int) -> DeviceSample:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _cuda_memory(handle)
    busy = _told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    heat = _told(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    return DeviceSample(memory.total_bytes, memory.used_bytes, memory.free_bytes, busy, heat)


def _told(ask: Callable[[], Any]) -> int | None:
    try:
        return int(ask())
    except pynvml.NVMLError_NotSupported:
        return None


def _word(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
