"""`GET /openapi.json`."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec
from falcon.asgi import Request, Response

from cortex_core.dialects.base import JSON_TYPE


class OpenApiResource:
    """Sends the description of the routes, which `describe` makes when it is first asked for."""

    def __init__(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._describe = describe

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Say what every route takes and gives, in OpenAPI's form."""
        resp.content_type = JSON_TYPE
        resp.data = self._document

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(self._describe())
