"""Bodies that are read, and senders that are given up."""

import asyncio
from typing import Any

import falcon.asgi
import pytest

from cortex_core import held_bodies
from cortex_core.errors import RequestTooSlow
from cortex_core.held_bodies import HeldBodies
from cortex_core.sizes import MIB
from cortexd.resources.request_body import read_body


class Reading:
    async def on_post(self, req: Any, resp: Any) -> None:
        try:
            await read_body(req)
        except RequestTooSlow as ex:
            resp.status = ex.status


async def test_who_stands_still_in_a_body_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not read from any more, which would take as long as it likes."""
    monkeypatch.setattr(held_bodies, "SENT_S", 0.0)
    monkeypatch.setattr(held_bodies, "SENT_BYTES_PER_S", 2**40)
    app = falcon.asgi.App()
    app.add_route("/", Reading())
    held = HeldBodies(app, limit_bytes=4 * MIB, max_body_bytes=4 * MIB, wait_s=60.0)
    messages = [{"type": "http.request", "body": b"x", "more_body": True}] * 2
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-length", b"%d" % (2 * MIB)), (b"host", b"here")],
        "server": ("here", 1),
        "client": ("there", 2),
    }
    await asyncio.wait_for(held(scope, receive, send), 30)
    assert statuses == [408]
