"""Models and where they are: loads, unloads, counting, endpoints, restarts of devices."""

from falcon.asgi import Request, Response

from cortex_core.canonical import CountTokensRequest, CountTokensResponse
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import (
    Endpoint,
    LoadProgress,
    LoadRequest,
    RestartRequest,
    UnloadRequest,
)
from neurond.node import Node
from neurond.resources.http import decode, model_in, read_body, while_connected, write_json


class LoadResource:
    """Loads a model; whoever leaves while waiting does not stop the load."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response) -> None:
        """Take a `LoadRequest`, answer with a `LoadResponse` when the model is ready."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, LoadRequest)
        write_json(resp, await while_connected(req, self._node.load(request, _unwatched)))


class UnloadResource:
    """Unloads a model; a busy one drains first."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response) -> None:
        """Take an `UnloadRequest`, answer with an `UnloadResponse` when its memory is free."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, UnloadRequest)
        write_json(resp, await while_connected(req, self._node.unload(request)))


class RestartResource:
    """Gives an idle device a new process."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response, device: str) -> None:
        """Take a `RestartRequest`, answer with a `RestartResponse` when the device is ready."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, RestartRequest)
        restarting = self._node.restart_device(DeviceName(device), request)
        write_json(resp, await while_connected(req, restarting))


class EndpointResource:
    """Where the OpenAI dialect of a model is served: here."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_get(self, req: Request, resp: Response, model_id: str) -> None:
        """Answer with an `Endpoint`; the host is the one that the caller used."""
        self._node.model(model_in(model_id))
        write_json(resp, Endpoint(f"{req.scheme}://{req.netloc}/v1"))


class CountTokensResource:
    """Counts from disk, also for models that are not loaded."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response, model_id: str) -> None:
        """Take a `CountTokensRequest`, answer with a `CountTokensResponse`."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, CountTokensRequest)
        counting = self._node.count_tokens(model_in(model_id), request)
        write_json(resp, CountTokensResponse(await while_connected(req, counting)))


def _unwatched(_progress: LoadProgress) -> None:
    """Progress of a load over HTTP is seen in `GET /models`."""
