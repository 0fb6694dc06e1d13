"""`GET /discovery`, `/health`, `/models`, `/version`, `/metrics`."""

from falcon.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from cortex_core import __version__
from cortex_core.neuron_api import PROTOCOL_VERSION, Version
from neurond.metrics import exposition
from neurond.node import Node
from neurond.resources.http import write_json


class DiscoveryResource:
    """What this host is and could run."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with a `Discovery`."""
        write_json(resp, self._node.discovery())


class HealthResource:
    """How this node is; 503 while it drains, so that load balancers look elsewhere."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with a `Health`."""
        write_json(resp, self._node.health(), status=503 if self._node.draining else 200)


class ModelsResource:
    """Every model on disk, on its way or in memory."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with a `ModelsResponse`."""
        write_json(resp, self._node.models())


class VersionResource:
    """Which program this is, and which form of canonical events it speaks."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with a `Version`."""
        write_json(resp, Version(__version__, PROTOCOL_VERSION))


class MetricsResource:
    """Prometheus metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Answer in Prometheus' text format."""
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = exposition(self._registry)
