"""The small HTTP server of the fleet actor answers whatever its pages do."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from cortex_core.config import Address
from cortex_core.sizes import MIB
from cortexd.fleet import metrics_server
from cortexd.fleet.metrics_server import MetricsServer
from tests.fakes.raw_requests import rest_of, sent
from tests.fakes.waiting import WAIT_S

LARGE_BYTES = 32 * MIB
"""More than what kernels keep for a client."""


async def works() -> tuple[int, str, bytes]:
    return 200, "text/plain", b"fine\n"


async def fails() -> tuple[int, str, bytes]:
    raise OSError("the folder is gone")


async def large() -> tuple[int, str, bytes]:
    return 200, "text/plain", bytes(LARGE_BYTES)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = MetricsServer({"/works": works, "/fails": fails, "/large": large})
    yield await server.start(Address("127.0.0.1", 0))
    await server.stop()


async def ask(port: int, line: str) -> tuple[str, str]:
    """Return the status line and the body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    try:
        async with asyncio.timeout(WAIT_S):
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
    return head.partition("\r\n")[0], body


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /works?a=b", "HTTP/1.1 200 OK"),
        ("GET /other", "HTTP/1.1 404 Not Found"),
        ("POST /works", "HTTP/1.1 405 Method Not Allowed"),
    ],
)
async def test_pages_are_found_by_path(port: int, line: str, status: str) -> None:
    assert (await ask(port, line))[0] == status


async def test_a_page_that_fails_is_answered_and_logged(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, body = await ask(port, "GET /fails")

    assert status == "HTTP/1.1 500 Internal Server Error"
    assert "cannot make this page" in body
    assert "folder" not in body
    assert [record.message for record in caplog.records] == ["page failed"]
    assert (await ask(port, "GET /works"))[1] == "fine\n"


async def is_answered(port: int) -> bool:
    try:
        return (await ask(port, "GET /works"))[1] == "fine\n"
    except ConnectionError:
        return False


async def until_answered(port: int) -> None:
    """Return once there is room for another connection."""
    async with asyncio.timeout(WAIT_S):
        while not await is_answered(port):
            continue


async def test_connections_have_a_bound(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "MAX_CONNECTIONS", 2)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]

    assert not await is_answered(port)

    for _, writer in idle:
        writer.close()
    await until_answered(port)


async def test_a_client_that_does_not_read_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(metrics_server, "REQUEST_TIMEOUT_S", 0.2)
    with sent(httpx.Request("GET", f"http://127.0.0.1:{port}/large")) as unread:
        await until_answered(port)

        assert len(await asyncio.to_thread(rest_of, unread)) < LARGE_BYTES
