"""A client that goes away is known at once, and its stream and source are closed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cortex_core.asgi import DISCONNECTED, DisconnectMiddleware, until_disconnected
from tests.fakes.waiting import WAIT_S, wait_until_async

POST = {"type": "http", "http_version": "1.1", "headers": [(b"content-length", b"4")]}
CHUNKED = {"type": "http", "http_version": "1.1", "headers": [(b"Transfer-Encoding", b"chunked")]}
GET: dict[str, Any] = {"type": "http", "http_version": "1.1", "headers": []}
HTTP2: dict[str, Any] = {"type": "http", "http_version": "2", "headers": []}
GONE = {"type": "http.disconnect"}


def body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


class Client:
    """The server's end of one request, as the middleware sees it."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
        for message in messages:
            self.queue.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        message = await self.queue.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Any) -> None:
        raise AssertionError("these applications send nothing")


async def run(app: Any, scope: dict[str, Any], client: Client) -> None:
    await asyncio.wait_for(DisconnectMiddleware(app)(scope, client.receive, client.send), WAIT_S)


@pytest.mark.parametrize(
    ("scope", "messages", "read"),
    [
        (POST, [body(b"abcd", more=False)], [b"abcd"]),
        (
            POST,
            [body(b"ab", more=True), body(b"cd", more=True), body(b"", more=False)],
            [b"ab", b"cd"],
        ),
        (CHUNKED, [body(b"ab", more=True), body(b"cd", more=False)], [b"ab", b"cd"]),
        (GET, [body(b"", more=False)], [b""]),
        (HTTP2, [body(b"ab", more=False)], [b"ab"]),
    ],
)
async def test_disconnect_is_told_after_the_body(
    scope: dict[str, Any], messages: list[dict[str, Any]], read: list[bytes]
) -> None:
    client = Client(*messages)
    seen: list[bytes] = []
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            seen.append(message["body"])
            more = message["more_body"]
        assert not scope[DISCONNECTED].is_set()
        client.queue.put_nowait(GONE)
        await scope[DISCONNECTED].wait()
        told.append(await receive())
        told.append(await receive())

    await run(app, scope, client)
    assert seen == read
    assert told == [GONE, GONE]


async def test_disconnect_within_the_body_is_told_too() -> None:
    client = Client(body(b"ab", more=True), GONE)
    states: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        states.append(scope[DISCONNECTED].is_set())
        assert await receive() == GONE
        states.append(scope[DISCONNECTED].is_set())

    await run(app, POST, client)
    assert states == [False, True]


async def test_request_without_a_body_need_not_be_read() -> None:
    client = Client(body(b"", more=False), GONE)
    told: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(await scope[DISCONNECTED].wait())

    await run(app, GET, client)
    assert told == [True]


async def test_connection_that_fails_counts_as_gone() -> None:
    client = Client(body(b"abcd", more=False))
    client.queue.put_nowait(ConnectionResetError("reset"))
    told: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append(await scope[DISCONNECTED].wait())

    await run(app, POST, client)
    assert told == [True]


async def test_nothing_waits_any_more_after_the_request() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    await run(app, POST, Client(body(b"abcd", more=False)))
    await wait_until_async(lambda: len(asyncio.all_tasks()) <= 2)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive))

    client = Client()
    scope = {"type": "lifespan"}
    receive = client.receive
    await DisconnectMiddleware(app)(scope, receive, client.send)
    assert seen == [(scope, receive)]


class Source:
    """Gives what it is told to, then is silent; remembers how it ended."""

    def __init__(self, *items: int) -> None:
        self.items = items
        self.silent = asyncio.Event()
        self.ended: list[str] = []

    async def stream(self) -> AsyncIterator[int]:
        try:
            for item in self.items:
                yield item
            self.silent.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        except GeneratorExit:
            self.ended.append("closed")
            raise
        finally:
            self.ended.append("cleaned up")


async def test_stream_passes_everything_and_ends_by_itself() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert [item async for item in until_disconnected(source(), asyncio.Event())] == [1, 2]


async def test_silent_source_is_closed_at_once() -> None:
    source, gone = Source(1), asyncio.Event()
    seen: list[int] = []

    async def read() -> str:
        seen.extend([item async for item in until_disconnected(source.stream(), gone)])
        return "ended"

    reading = asyncio.create_task(read())
    await asyncio.wait_for(source.silent.wait(), WAIT_S)
    gone.set()
    assert await asyncio.wait_for(reading, WAIT_S) == "ended"
    assert seen == [1]
    assert source.ended == ["cancelled", "cleaned up"]
    assert reading.cancelling() == 0


async def test_disconnect_between_items_ends_before_the_next() -> None:
    source, gone = Source(1, 2, 3), asyncio.Event()
    seen = []
    async for item in until_disconnected(source.stream(), gone):
        seen.append(item)
        gone.set()
    assert seen == [1]
    assert source.ended == ["closed", "cleaned up"]


async def test_client_that_was_gone_before_gets_nothing() -> None:
    gone = asyncio.Event()
    gone.set()
    source = Source(1)
    assert [item async for item in until_disconnected(source.stream(), gone)] == []


@pytest.mark.parametrize("way", ["aclose", "close"])
async def test_closing_the_guard_closes_the_source(way: str) -> None:
    source = Source(1, 2)
    guard = until_disconnected(source.stream(), asyncio.Event())
    assert await anext(guard) == 1
    await getattr(guard, way)()
    await getattr(guard, way)()
    assert source.ended == ["closed", "cleaned up"]
    with pytest.raises(StopAsyncIteration):
        await anext(guard)


@pytest.mark.parametrize("disconnects", [False, True])
async def test_cancellation_from_outside_stays_one(disconnects: bool) -> None:
    source, gone = Source(), asyncio.Event()
    guard = until_disconnected(source.stream(), gone)

    async def read() -> None:
        await anext(guard)

    reading = asyncio.create_task(read())
    await asyncio.wait_for(source.silent.wait(), WAIT_S)
    if disconnects:
        gone.set()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.ended == ["cancelled", "cleaned up"]


async def test_errors_of_the_source_come_through_and_close_it() -> None:
    cleaned = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            raise RuntimeError("boom")
        finally:
            cleaned.append(True)

    guard = until_disconnected(source(), asyncio.Event())
    assert await anext(guard) == 1
    with pytest.raises(RuntimeError, match="boom"):
        await anext(guard)
    assert cleaned == [True]


async def test_source_that_swallows_the_cancellation_gives_its_item_and_ends() -> None:
    silent, gone = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            silent.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 7

    async def read() -> list[int]:
        return [item async for item in until_disconnected(source(), gone)]

    reading = asyncio.create_task(read())
    await asyncio.wait_for(silent.wait(), WAIT_S)
    gone.set()
    assert await asyncio.wait_for(reading, WAIT_S) == [7]
    assert reading.cancelling() == 0


async def test_timeout_around_the_guard_still_works() -> None:
    source = Source()
    guard = until_disconnected(source.stream(), asyncio.Event())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(guard)
    assert source.ended == ["cancelled", "cleaned up"]
