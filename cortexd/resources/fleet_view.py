"""What resources read of the fleet."""

from typing import Protocol

from cortex_core.ids import ModelId
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot


class FleetView(Protocol):
    """The reading side of `cortexd.fleet.client.FleetClient`."""

    def snapshot(self) -> FleetSnapshot: ...

    def index(self) -> FleetIndex: ...

    def resolve(self, text: str) -> ModelId: ...
