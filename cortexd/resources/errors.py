"""Errors in the dialect of the client that gets them, whatever went wrong and wherever."""

import logging
from typing import Any, Final

import falcon
from falcon.asgi import App, Request, Response

from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import JSON_TYPE, Dialect
from cortex_core.dialects.model_lists import models_dialect
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.errors import (
    CortexError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
)
from cortex_core.logs import kv
from cortexd.resources.request_ids import request_id_of

log = logging.getLogger(__name__)

_OPENAI: Final = OpenAIChat()
_ANTHROPIC: Final = AnthropicMessages()
_OPENAIS_OWN: Final = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/responses")


def dialect_of(request: Request) -> Dialect:
    """Return the dialect for errors: the path's own, else that of the caller's headers."""
    if request.path.startswith(_OPENAIS_OWN):
        return _OPENAI
    if "/messages" in request.path or models_dialect(request.headers) == "anthropic":
        return _ANTHROPIC
    return _OPENAI


def install_error_handlers(app: App[Any, Any]) -> None:
    """Make every error of `app` an answer in the client's dialect."""
    app.add_error_handler(Exception, _on_defect)
    app.add_error_handler(falcon.HTTPError, _on_falcon_error)
    app.add_error_handler(CortexError, _on_cortex_error)


async def _on_cortex_error(
    req: Request, resp: Response, error: CortexError, _params: dict[str, Any]
) -> None:
    _answer(req, resp, error)


async def _on_falcon_error(
    req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]
) -> None:
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        _answer(req, resp, MethodNotAllowed(f"cannot {req.method} {req.path}: no such method here"))
        resp.set_headers(error.headers or {})
    else:
        _answer(req, resp, _translated(req, error))


async def _on_defect(
    req: Request, resp: Response, error: Exception, _params: dict[str, Any]
) -> None:
    request_id = request_id_of(req)
    log.error("request failed", extra=kv(request_id=request_id, path=req.path), exc_info=error)
    text = f"cannot serve the request: internal error; the log has it under {request_id}"
    resp.context.logged = True
    _answer(req, resp, InternalError(text))


def _answer(req: Request, resp: Response, error: CortexError) -> None:
    request_id = request_id_of(req)
    reply = dialect_of(req).encode_error(error.info(), request_id=request_id)
    if not getattr(resp.context, "logged", False):
        level = logging.WARNING if error.is_for_good else logging.INFO
        told = kv(request_id=request_id, path=req.path, status=reply.status, cause=error.message)
        log.log(level, "request refused", extra=told)
    resp.status = reply.status
    resp.content_type = JSON_TYPE
    resp.data = reply.body
    resp.stream = None
    resp.set_headers(reply.headers)


def _translated(req: Request, error: falcon.HTTPError) -> CortexError:
    if isinstance(error, falcon.HTTPNotFound):
        return NotFound(f"cannot find {req.method} {req.path}: {_where(req.path)}")
    if isinstance(error, falcon.HTTPContentTooLarge):
        return RequestTooLarge(f"cannot read the request: {error.title}")
    return InvalidRequest(f"cannot read the request: {error.description or error.title}")


def _where(path: str) -> str:
    if path.startswith("/v1/v1/"):
        return (
            "the path has /v1 twice; leave it out of the base URL, as in http://HOST:31313 for "
            "Anthropic clients and http://HOST:31313/v1 for OpenAI clients"
        )
    if path.startswith(("/chat/", "/completions", "/embeddings", "/responses", "/models")):
        return "the path lacks /v1; the base URL of OpenAI clients is http://HOST:31313/v1"
    if path.startswith("/messages"):
        return "the path lacks /v1; the base URL of Anthropic clients is http://HOST:31313"
    return "no such route"
