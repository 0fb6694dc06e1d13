"""The node's HTTP API as one ASGI application. Wiring only; the routes are in `resources`."""

import logging
from collections.abc import Awaitable
from typing import Any, Final, cast

import falcon
from falcon.asgi import App, Request, Response
from prometheus_client import CollectorRegistry

from cortex_core.asgi import App as AsgiApp
from cortex_core.asgi import DisconnectMiddleware, Receive, Scope, Send
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.dialects.openai_embeddings import OpenAIEmbeddings
from cortex_core.errors import CortexError, ErrorInfo, InternalError, NotFound
from cortex_core.held_bodies import HeldBodies
from cortex_core.logs import kv
from cortex_core.sizes import MIB
from neurond.node import Node
from neurond.resources.embed import EmbeddingsResource, EmbedResource
from neurond.resources.generate import GenerateResource
from neurond.resources.http import ClientGone, log_refused, request_id_of, write_error
from neurond.resources.models import (
    CountTokensResource,
    EndpointResource,
    LoadResource,
    RestartResource,
    UnloadResource,
)
from neurond.resources.node import (
    DiscoveryResource,
    HealthResource,
    MetricsResource,
    ModelsResource,
    VersionResource,
)
from neurond.resources.openai import DialectResource, OpenAIModelsResource, write_dialect_error

MODEL_PATHS: Final = "/models/"
OPENAI_PATHS: Final = "/v1/"
CLIENT_GONE_STATUS: Final = 499
BODY_WAIT_S: Final = 10.0
"""In silence; a gateway takes 30 s of it for the death of the node."""

_log = logging.getLogger(__name__)


def create_app(node: Node, registry: CollectorRegistry) -> AsgiApp:
    """Return the application, for any ASGI server that gives `raw_path`."""
    app = App()
    app.add_route("/discovery", DiscoveryResource(node))
    app.add_route("/health", HealthResource(node))
    app.add_route("/version", VersionResource())
    app.add_route("/metrics", MetricsResource(registry))
    app.add_route("/models", ModelsResource(node))
    app.add_route("/models/load", LoadResource(node))
    app.add_route("/models/unload", UnloadResource(node))
    app.add_route("/devices/{device}/restart", RestartResource(node))
    app.add_route("/models/{model_id}/endpoint", EndpointResource(node))
    app.add_route("/models/{model_id}/count_tokens", CountTokensResource(node))
    app.add_route("/generate", GenerateResource(node))
    app.add_route("/embed", EmbedResource(node))
    app.add_route("/v1/chat/completions", DialectResource(node, OpenAIChat()))
    app.add_route("/v1/completions", DialectResource(node, OpenAICompletions()))
    app.add_route("/v1/embeddings", EmbeddingsResource(node, OpenAIEmbeddings()))
    app.add_route("/v1/models", OpenAIModelsResource(node))
    app.add_error_handler(Exception, _on_defect)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(CortexError, _on_error)
    app.add_error_handler(ClientGone, _on_client_gone)
    watched = RawModelPaths(DisconnectMiddleware(cast("AsgiApp", app)))
    limits = node.config.limits
    return HeldBodies(
        watched,
        limit_bytes=limits.held_bodies_mb * MIB,
        max_body_bytes=limits.max_body_mb * MIB,
        wait_s=BODY_WAIT_S,
    )


class RawModelPaths:
    """Routes by the undecoded path below `/models/`: a model id may have a `/` in it, as `%2F`."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and raw.startswith(MODEL_PATHS.encode()):
            path = raw.partition(b"?")[0].decode("ascii", "replace")
            scope = {**scope, "path": path}
        return self._app(scope, receive, send)


def _answer_error(
    req: Request, resp: Response, error: ErrorInfo, *, status: int | None = None
) -> None:
    """Write an error in the form that the route's clients expect."""
    if req.path.startswith(OPENAI_PATHS):
        write_dialect_error(resp, OpenAIChat(), error, request_id_of(req))
    else:
        write_error(resp, error, status=status)


async def _on_error(req: Request, resp: Response, ex: CortexError, _params: Any) -> None:
    _answer_error(req, resp, ex.info())
    log_refused(req, ex.info())


async def _on_http_error(req: Request, resp: Response, ex: falcon.HTTPError, _params: Any) -> None:
    """Falcon's own errors, such as an unknown route."""
    if ex.status_code == 404:
        error = NotFound(f"cannot {req.method} {req.path}: no such route").info()
    elif ex.status_code == 405:
        error = ErrorInfo("method_not_allowed", f"cannot {req.method} {req.path}: no such method")
    else:
        error = ErrorInfo("invalid_request", f"cannot read request: {ex.description or ex.title}")
    _answer_error(req, resp, error, status=ex.status_code)
    log_refused(req, error)
    if ex.headers:
        resp.set_headers(ex.headers)


async def _on_client_gone(_req: Request, resp: Response, _ex: ClientGone, _params: Any) -> None:
    resp.status = CLIENT_GONE_STATUS


async def _on_defect(req: Request, resp: Response, ex: Exception, _params: Any) -> None:
    told = kv(request_id=request_id_of(req), path=req.path)
    _log.error("request failed", extra=told, exc_info=ex)
    _answer_error(req, resp, InternalError(f"cannot answer: {type(ex).__name__}: {ex}").info())
