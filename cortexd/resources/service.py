"""What is asked of the gateway itself: is it there, and how is it."""

import msgspec
from falcon.asgi import Request, Response

from cortex_core import __version__
from cortex_core.dialects.base import JSON_TYPE
from cortexd.drain import Drain
from cortexd.fleet.protocol import FleetSnapshot
from cortexd.resources.fleet_view import FleetView


class Greeting(msgspec.Struct, frozen=True):
    name: str
    version: str


class RootResource:
    """`GET` and `HEAD /`: some clients knock here before they speak."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Say who this is."""
        resp.content_type = JSON_TYPE
        resp.data = msgspec.json.encode(Greeting("cortex", __version__))

    on_head = on_get


class Health(msgspec.Struct, frozen=True):
    status: str
    version: str
    nodes: int
    healthy_nodes: int
    models: int
    ready_replicas: int


class HealthResource:
    """`GET /health`: 200 while requests are taken, 503 while starting and draining."""

    def __init__(self, fleet: FleetView, drain: Drain) -> None:
        self._fleet = fleet
        self._drain = drain

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Say how the fleet is, as this worker sees it."""
        snapshot = self._fleet.snapshot()
        status = self._status(snapshot)
        resp.status = 200 if status == "ok" else 503
        health = Health(
            status=status,
            version=__version__,
            nodes=len(snapshot.nodes),
            healthy_nodes=sum(node.healthy for node in snapshot.nodes),
            models=len(snapshot.models),
            ready_replicas=sum(replica.status == "ready" for replica in snapshot.replicas),
        )
        resp.content_type = JSON_TYPE
        resp.data = msgspec.json.encode(health)

    on_head = on_get

    def _status(self, snapshot: FleetSnapshot) -> str:
        if self._drain.begun:
            return "draining"
        return "ok" if snapshot.version > 0 else "starting"
