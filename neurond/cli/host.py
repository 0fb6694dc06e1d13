"""What this host offers, found without a running node."""

import msgspec

from cortex_core.neuron_api import Discovery
from neurond.devices import Devices
from neurond.supervisor.views import discovery_view


def host_view(devices: Devices) -> Discovery:
    """Describe the host; `boot_id` is empty and no attention backend has been picked."""
    return msgspec.structs.replace(discovery_view(devices, [], ""), devices=devices.found)
