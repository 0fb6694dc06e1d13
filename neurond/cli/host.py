"""What this host offers, found without a running node."""

import msgspec

from cortex_core.neuron_api import DeviceInfo, Discovery
from neurond.devices import Devices
from neurond.supervisor.views import discovery_view


def host_view(devices: Devices) -> Discovery:
    """Describe the host; `boot_id` is empty and no attention backend has been picked."""
    found = [_with_kernels(device) for device in devices.found]
    return msgspec.structs.replace(discovery_view(devices, [], ""), devices=found)


def _with_kernels(device: DeviceInfo) -> DeviceInfo:
    if device.kind != "cpu":
        return device
    # Here and not above: numpy comes along, and `neuron serve` has no use for it.
    from neurond.kernels.variants import NoKernels, load_kernels

    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        return msgspec.structs.replace(device, kernels_unavailable_reason=kernels.reason)
    return msgspec.structs.replace(device, kernels=kernels.variant)
