"""What resources read of the fleet, and tell it."""

from typing import Protocol

from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId, ReplicaId
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot


class FleetView(Protocol):
    """What is asked of `cortexd.fleet.client.FleetClient`."""

    def snapshot(self) -> FleetSnapshot: ...

    def index(self) -> FleetIndex: ...

    def resolve(self, text: str) -> ModelId: ...

    def report_failure(self, replica_id: ReplicaId, error: ErrorInfo) -> None: ...
