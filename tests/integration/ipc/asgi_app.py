"""An application that streams one chunk and then is silent; tells in a file how it ended."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cortex_core.asgi import DISCONNECTED, DisconnectMiddleware, until_disconnected


def note(text: str) -> None:
    with Path(os.environ["ASGI_NOTES"]).open("a", encoding="utf-8") as notes:
        notes.write(text + "\n")


async def source(path: str) -> AsyncIterator[bytes]:
    try:
        yield b"first\n"
        note(f"{path} silent")
        await asyncio.Event().wait()
    finally:
        note(f"{path} source closed")


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    path = scope["path"]
    more = scope["method"] == "POST"
    size = 0
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/short":
        await send({"type": "http.response.body", "body": b"%d" % size, "more_body": False})
        return
    async for chunk in until_disconnected(source(path), scope[DISCONNECTED]):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    note(f"{path} ended")


app = DisconnectMiddleware(answer)
