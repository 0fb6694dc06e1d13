"""`GET /openapi.json`."""

from collections.abc import Mapping
from functools import cached_property

import msgspec
from falcon.asgi import Request, Response

from cortex_core.dialects.base import JSON_TYPE
from cortexd.openapi import openapi_document


class OpenApiResource:
    """Describes `routes`, itself among them, when it is first asked."""

    def __init__(self, routes: Mapping[str, object]) -> None:
        self._routes = routes

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Say what every route takes and gives, in OpenAPI's form."""
        resp.content_type = JSON_TYPE
        resp.data = self._document

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(openapi_document(self._routes))
