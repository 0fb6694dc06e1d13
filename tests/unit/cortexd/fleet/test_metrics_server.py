"""The small HTTP server of the fleet actor answers whatever its pages do."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from cortex_core.config import Address
from cortexd.fleet.metrics_server import MetricsServer
from tests.fakes.waiting import WAIT_S


async def works() -> tuple[int, str, bytes]:
    return 200, "text/plain", b"fine\n"


async def fails() -> tuple[int, str, bytes]:
    raise OSError("the folder is gone")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = MetricsServer({"/works": works, "/fails": fails})
    yield await server.start(Address("127.0.0.1", 0))
    await server.stop()


async def ask(port: int, line: str) -> tuple[str, str]:
    """Return the status line and the body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    async with asyncio.timeout(WAIT_S):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
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
