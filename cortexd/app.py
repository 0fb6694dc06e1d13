"""The Falcon application: routes, and what answers them."""

from collections.abc import Callable
from functools import partial

import msgspec
from falcon.asgi import App, Request, Response

from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Dialect
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.dialects.openai_embeddings import OpenAIEmbeddings
from cortex_core.dialects.openai_responses import OpenAIResponses
from cortexd.drain import Drain
from cortexd.embedding import EmbeddingGateway
from cortexd.gateway import Gateway
from cortexd.openapi import openapi_document
from cortexd.resources.count_tokens import CountTokensResource
from cortexd.resources.embeddings import EmbeddingsResource
from cortexd.resources.errors import install_error_handlers
from cortexd.resources.fleet_view import FleetView
from cortexd.resources.generation import GenerationResource
from cortexd.resources.models import ModelResource, ModelsResource
from cortexd.resources.openapi import OpenApiResource
from cortexd.resources.responses import ResponsesResource
from cortexd.resources.service import HealthResource, RootResource
from cortexd.resources.stored_responses import (
    CancelResource,
    InputItemsResource,
    StoredResponseResource,
)
from cortexd.responses.store import ResponseStore
from cortexd.token_count import Counting

FalconApp = App[Request, Response]


class AppParts(msgspec.Struct, frozen=True):
    """What the application is made of; wiring constructs it."""

    gateway: Gateway
    embedding: EmbeddingGateway
    fleet: FleetView
    nodes: Counting
    responses: ResponseStore
    drain: Drain
    clock: Callable[[], float]
    started_at: int
    """Seconds since 1970; the same for every worker of this gateway."""
    drop_billing_line: bool = True
    """See `AnthropicMessages`."""


def create_app(parts: AppParts) -> FalconApp:
    """Return the application. It owns nothing; closing the parts is the caller's."""
    app: FalconApp = App()
    anthropic = AnthropicMessages(drop_billing_line=parts.drop_billing_line)

    def generation(dialect: Dialect) -> GenerationResource:
        return GenerationResource(dialect, parts.gateway, parts.clock)

    responses = ResponsesResource(OpenAIResponses(), parts.gateway, parts.responses, parts.clock)
    routes: dict[str, object] = {
        "/": RootResource(),
        "/health": HealthResource(parts.fleet, parts.drain),
        "/v1/chat/completions": generation(OpenAIChat()),
        "/v1/completions": generation(OpenAICompletions()),
        "/v1/embeddings": EmbeddingsResource(OpenAIEmbeddings(), parts.embedding),
        "/v1/responses": responses,
        "/v1/responses/{response_id}": StoredResponseResource(parts.responses),
        "/v1/responses/{response_id}/cancel": CancelResource(parts.responses),
        "/v1/responses/{response_id}/input_items": InputItemsResource(parts.responses),
        "/v1/messages": generation(anthropic),
        "/v1/messages/count_tokens": CountTokensResource(anthropic, parts.fleet, parts.nodes),
        "/v1/models": ModelsResource(parts.fleet, parts.started_at),
        "/v1/models/{model:path}": ModelResource(parts.fleet, parts.started_at),
    }
    # `routes` has this one too by the time it is asked.
    routes["/openapi.json"] = OpenApiResource(partial(openapi_document, routes))
    for path, resource in routes.items():
        app.add_route(path, resource)
    install_error_handlers(app)
    return app
