"""The terminal's own client, against what is no gateway or none that is whole."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from cortex_core.errors import ProtocolError, QueueFull
from cortexd.chat_client import Busy, ChatClient, Piece, Said, Spent, Turn
from tests.fakes.scripted_http import ScriptedConnection, ScriptedServer

PAGE = b"<!doctype html>\n<html>Welcome</html>\n"
ANSWER = (
    b": loading file:m 40 %\n\n"
    b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
)
DONE = b"data: [DONE]\n\n"


@contextlib.asynccontextmanager
async def client_of(body: bytes, status: int = 200) -> AsyncIterator[ChatClient]:
    """Yield a client of a server that answers everything with `body`."""

    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.send_json(body, status=status)
        await connection.closed_by_peer()

    async with ScriptedServer(handler) as server:
        client = ChatClient(server.endpoint)
        try:
            yield client
        finally:
            client.close()


async def ask(client: ChatClient) -> list[Piece]:
    return [piece async for piece in client.ask("m", [Turn("user", "Hi")])]


async def test_a_whole_answer() -> None:
    async with client_of(ANSWER + DONE) as client:
        assert await ask(client) == [Busy("loading file:m 40 %"), Said("Hi"), Spent(3, 1)]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (PAGE, "ended without"),
        (b"", "ended without"),
        (ANSWER, "ended without"),
        (b'data: {"choices": 3}\n\n', "cannot be read"),
        (b"data: {oops\n\n", "cannot be read"),
        (b": \xff\n\n", "cannot be read"),
    ],
)
async def test_what_is_no_answer_is_an_error(body: bytes, cause: str) -> None:
    async with client_of(body) as client:
        with pytest.raises(ProtocolError, match=f"{cause}.*is that a gateway"):
            await ask(client)


@pytest.mark.parametrize("body", [PAGE, b"{}", b"", b'{"data": [{"name": "m"}]}'])
async def test_what_is_no_list_of_models_is_an_error(body: bytes) -> None:
    async with client_of(body) as client:
        with pytest.raises(ProtocolError, match="no list of models"):
            await client.pick_model()


async def test_a_refusal_is_told_as_it_is_and_a_foreign_one_by_its_status() -> None:
    refusal = b'{"error": {"message": "cannot queue", "code": "queue_full"}}'
    async with client_of(refusal, 429) as client:
        with pytest.raises(QueueFull, match="cannot queue"):
            await ask(client)
    async with client_of(PAGE, 404) as client:
        with pytest.raises(ProtocolError, match="status 404"):
            await ask(client)
