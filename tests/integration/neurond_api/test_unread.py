"""Who does not read an answer of a node is cut off."""

import asyncio
import logging
import socket

import httpx
import pytest

from cortex_core.asgi import Receive, Scope, Send
from cortex_core.sizes import MIB
from neurond.server import MAX_HEAD_BYTES, BoundedProtocol, HttpServer
from tests.fakes.raw_requests import rest_of, sent
from tests.fakes.waiting import WAIT_S, wait_until_async

ANSWER_BYTES = 32 * MIB
"""More than what kernels keep for a client."""
KERNEL_BYTES = 4096
"""What a kernel is told to keep; it takes a few times as much."""
UNPAUSED_BYTES = 60 * 1024
"""More than that, and less than where an application has to wait."""


@pytest.mark.parametrize("num_pieces", [1, 32], ids=["whole", "streamed"])
async def test_a_client_that_does_not_read_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, num_pieces: int
) -> None:
    monkeypatch.setattr(BoundedProtocol, "stalled_s", 0.2)
    ended = asyncio.Event()

    async def large(_scope: Scope, _receive: Receive, send: Send) -> None:
        length = (b"content-length", str(ANSWER_BYTES).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        piece = bytes(ANSWER_BYTES // num_pieces)
        for left in reversed(range(num_pieces)):
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        ended.set()

    bound = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server = HttpServer(large, bound)
    server.start()
    try:
        with (
            caplog.at_level(logging.WARNING, "cortex_core"),
            sent(httpx.Request("GET", url)) as unread,
        ):
            await asyncio.wait_for(ended.wait(), WAIT_S)
            await wait_until_async(lambda: "client cut off" in caplog.text)
            assert len(await asyncio.to_thread(rest_of, unread)) < ANSWER_BYTES
    finally:
        await server.close()


@pytest.mark.parametrize(
    "refused", [b"no request\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + bytes(MAX_HEAD_BYTES + 1)]
)
async def test_a_client_that_is_refused_and_does_not_read_is_cut_off(
    refused: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BoundedProtocol, "stalled_s", 0.2)
    answered = asyncio.Event()

    async def small(_scope: Scope, _receive: Receive, send: Send) -> None:
        length = (b"content-length", str(UNPAUSED_BYTES).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": bytes(UNPAUSED_BYTES)})
        answered.set()

    bound = socket.create_server(("127.0.0.1", 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server = HttpServer(small, bound)
    server.start()
    try:
        with (
            caplog.at_level(logging.WARNING, "cortex_core"),
            sent(httpx.Request("GET", url), receive_buffer_bytes=KERNEL_BYTES) as unread,
        ):
            await asyncio.wait_for(answered.wait(), WAIT_S)
            await asyncio.to_thread(unread.sendall, refused)
            await wait_until_async(lambda: "client cut off" in caplog.text)
            assert len(await asyncio.to_thread(rest_of, unread)) < UNPAUSED_BYTES
    finally:
        await server.close()
