"""The neuron client against sockets that misbehave in every way that has a name."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    CountTokensRequest,
    Event,
    GenerateRequest,
    Ping,
    Started,
    TextDelta,
    TextPrompt,
    Usage,
)
from cortex_core.errors import (
    InvalidRequest,
    ModelNotLoaded,
    NodeUnavailable,
    Overloaded,
    ProtocolError,
    QueueFull,
    Timeout,
)
from cortex_core.ids import ModelId, RequestId
from cortexd.http1.pool import ConnectionPool, PoolLimits
from cortexd.neuron_client import ClientTimeouts, NeuronClient
from tests.fakes.scripted_http import Handler, ScriptedConnection, ScriptedServer
from tests.fakes.waiting import WAIT_S, wait_until_async

MODEL = ModelId("fake:m")
REQUEST = GenerateRequest(RequestId("r1"), MODEL, TextPrompt("hi"))
EVENTS: list[Event] = [
    Started(RequestId("r1"), MODEL, 1),
    TextDelta(0, "grüße", seq=0, token_ids=(5,)),
    Completed(Usage(1, 1)),
]
QUICK = ClientTimeouts(tick_s=0.02, idle_s=0.2, poll_s=0.3)
"""For tests of silence: in any other one a busy machine would put a `Ping` among the events."""


def line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


@contextlib.asynccontextmanager
async def serving(
    handler: Handler,
    timeouts: ClientTimeouts | None = None,
    limits: PoolLimits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[NeuronClient, ScriptedServer]]:
    client = NeuronClient(pool=ConnectionPool(limits), timeouts=timeouts, clock=clock)
    async with ScriptedServer(handler) as server:
        try:
            yield client, server
        finally:
            client.close()


async def collect(client: NeuronClient, endpoint: str) -> list[Event]:
    return [event async for event in client.generate(endpoint, REQUEST)]


async def stream_all(connection: ScriptedConnection) -> None:
    while True:
        await connection.request()
        await connection.begin_stream()
        for event in EVENTS:
            await connection.chunk(line(event))
        await connection.send(b"0\r\n\r\n")


async def test_a_request_that_is_too_deep_to_be_written_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}
    prompt = ChatPrompt((), template_kwargs=deep)
    request = GenerateRequest(RequestId("r1"), MODEL, prompt)
    async with serving(stream_all) as (client, server):
        with pytest.raises(InvalidRequest, match="nested too deeply"):
            await anext(client.generate(server.endpoint, request))
        with pytest.raises(InvalidRequest, match="nested too deeply"):
            await client.count_tokens(server.endpoint, MODEL, CountTokensRequest(prompt))
        assert await collect(client, server.endpoint) == EVENTS


async def test_stream_is_given_event_by_event_and_its_connection_kept() -> None:
    async with serving(stream_all) as (client, server):
        for _ in range(3):
            assert await collect(client, server.endpoint) == EVENTS
        assert server.connections == 1


async def test_request_reaches_the_node_as_it_is() -> None:
    seen: list[tuple[str, bytes]] = []

    async def handler(connection: ScriptedConnection) -> None:
        seen.append(await connection.request())
        await connection.begin_stream()
        await connection.chunk(line(EVENTS[-1]))

    async with serving(handler) as (client, server):
        await collect(client, server.endpoint)
    assert seen[0][0] == "POST /generate HTTP/1.1"
    assert msgspec.json.decode(seen[0][1], type=GenerateRequest) == REQUEST


async def test_silence_becomes_pings_then_an_error() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.closed_by_peer()

    async with serving(handler, QUICK) as (client, server):
        stream = client.generate(server.endpoint, REQUEST)
        assert [await anext(stream) for _ in range(8)] == [Ping()] * 8
        with pytest.raises(NodeUnavailable, match="silent for"):
            [event async for event in stream]


async def test_idle_timeout_is_per_chunk_and_never_total() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.begin_stream()
        never = asyncio.Event()
        for _ in range(6):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(never.wait(), 0.1)
            await connection.chunk(line(Ping()))
        await connection.chunk(line(EVENTS[-1]))

    async with serving(handler, QUICK) as (client, server):
        events = await collect(client, server.endpoint)
    assert events[-1] == EVENTS[-1]


async def test_closing_the_iterator_aborts_the_connection_at_once() -> None:
    gone = asyncio.Event()

    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.begin_stream()
        await connection.chunk(line(EVENTS[0]))
        await connection.closed_by_peer()
        gone.set()

    async with serving(handler) as (client, server):
        stream = client.generate(server.endpoint, REQUEST)
        assert await anext(stream) == EVENTS[0]
        await stream.aclose()
        await asyncio.wait_for(gone.wait(), WAIT_S)


async def test_stale_kept_alive_connection_is_replaced_once() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        if connection.number == 0:
            await connection.send_json(b'{"prompt_tokens": 1}')
            await connection.request()
            connection.reset()
            return
        await connection.send_json(b'{"prompt_tokens": 2}')

    async with serving(handler) as (client, server):
        ask = CountTokensRequest(TextPrompt("hi"))
        assert (await client.count_tokens(server.endpoint, MODEL, ask)).prompt_tokens == 1
        assert (await client.count_tokens(server.endpoint, MODEL, ask)).prompt_tokens == 2
        assert server.connections == 2


async def test_fresh_connection_that_breaks_is_not_tried_again() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        connection.reset()

    async with serving(handler) as (client, server):
        with pytest.raises(NodeUnavailable):
            await collect(client, server.endpoint)
        assert server.connections == 1


async def test_kept_alive_connection_that_breaks_mid_answer_is_not_tried_again() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.send_json(b'{"prompt_tokens": 1}')
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n")
        connection.reset()

    async with serving(handler) as (client, server):
        ask = CountTokensRequest(TextPrompt("hi"))
        await client.count_tokens(server.endpoint, MODEL, ask)
        with pytest.raises(NodeUnavailable):
            await collect(client, server.endpoint)
        assert server.connections == 1


@pytest.mark.parametrize("cut", ["stream ends", "connection breaks"])
async def test_stream_without_a_last_event_is_an_error(cut: str) -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.begin_stream()
        await connection.chunk(line(EVENTS[0]))
        if cut == "stream ends":
            await connection.send(b"0\r\n\r\n")

    async with serving(handler) as (client, server):
        stream = client.generate(server.endpoint, REQUEST)
        assert await anext(stream) == EVENTS[0]
        with pytest.raises(NodeUnavailable):
            await anext(stream)


async def test_nodes_own_errors_keep_their_kind() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        body = b'{"error":{"code":"queue_full","message":"cannot queue: full","retry_after_s":3}}'
        await connection.request()
        await connection.send_json(body, status=429)
        await connection.request()
        body = b'{"error":{"code":"model_not_loaded","message":"cannot run: not loaded"}}'
        await connection.send_json(body, status=409)

    async with serving(handler) as (client, server):
        with pytest.raises(QueueFull) as full:
            await collect(client, server.endpoint)
        assert full.value.retry_after_s == 3
        with pytest.raises(ModelNotLoaded):
            await client.models(server.endpoint)
        assert server.connections == 1


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"{}", b""])
async def test_answers_that_are_no_errors_of_ours_are_told_with_their_status(body: bytes) -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.send_json(body, status=502)

    async with serving(handler) as (client, server):
        with pytest.raises(ProtocolError, match="502"):
            await client.discovery(server.endpoint)


async def test_draining_nodes_health_is_read_though_its_status_is_503() -> None:
    health = (
        b'{"uptime_secs":1,"state_version":4,"draining":true,"devices":[],'
        b'"activation":{"state":"done"}}'
    )

    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.send_json(health, status=503)

    async with serving(handler) as (client, server):
        assert (await client.health(server.endpoint)).draining


async def test_json_call_has_a_total_timeout() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.closed_by_peer()

    async with serving(handler, QUICK) as (client, server):
        with pytest.raises(Timeout, match=r"0\.3 s"):
            await client.models(server.endpoint)


async def test_a_count_can_be_given_less_time_than_usual() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.closed_by_peer()

    async with serving(handler) as (client, server):
        ask = CountTokensRequest(TextPrompt("hi"))
        with pytest.raises(Timeout, match=r"0\.05 s"):
            await client.count_tokens(server.endpoint, MODEL, ask, timeout_s=0.05)


async def test_nobody_listening_is_node_unavailable(free_port: int) -> None:
    client = NeuronClient()
    with pytest.raises(NodeUnavailable, match="cannot reach node"):
        await collect(client, f"http://127.0.0.1:{free_port}")


async def test_full_pool_refuses_instead_of_queueing() -> None:
    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.begin_stream()
        await connection.chunk(line(EVENTS[0]))
        await connection.closed_by_peer()

    async with serving(handler, limits=PoolLimits(max_connections=1)) as (client, server):
        first = client.generate(server.endpoint, REQUEST)
        await anext(first)
        with pytest.raises(Overloaded):
            await collect(client, server.endpoint)
        await first.aclose()
        await wait_until_async(lambda: server.connections == 1)
        second = client.generate(server.endpoint, REQUEST)
        assert await anext(second) == EVENTS[0]
        await second.aclose()


async def test_big_bodies_go_both_ways() -> None:
    sizes: list[int] = []

    async def handler(connection: ScriptedConnection) -> None:
        _, body = await connection.request()
        sizes.append(len(body))
        await connection.begin_stream()
        await connection.chunk(line(TextDelta(0, "y" * 8_000_000)))
        await connection.chunk(line(EVENTS[-1]))

    request = msgspec.structs.replace(REQUEST, prompt=TextPrompt("x" * 20_000_000))
    async with serving(handler) as (client, server):
        events = [event async for event in client.generate(server.endpoint, request)]
    assert sizes[0] > 20_000_000
    assert isinstance(events[0], TextDelta)
    assert len(events[0].text) == 8_000_000


async def test_reader_that_stops_holds_the_node_back() -> None:
    sent = 0

    async def handler(connection: ScriptedConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.begin_stream()
        chunk = line(TextDelta(0, "z" * 65_000))
        while sent < 200_000_000:
            await connection.chunk(chunk)
            sent += len(chunk)

    async with serving(handler) as (client, server):
        stream = client.generate(server.endpoint, REQUEST)
        await anext(stream)
        seen = -1

        def stands_still() -> bool:
            nonlocal seen
            before, seen = seen, sent
            return before == sent

        await wait_until_async(stands_still)
        assert sent < 50_000_000
        await stream.aclose()


async def test_head_and_first_event_share_one_tick() -> None:
    """A node that answers just before a tick has passed gets what is left of it, not another."""
    tick_s, left_s, now = 600.0, 0.05, 0.0

    async def handler(connection: ScriptedConnection) -> None:
        nonlocal now
        await connection.request()
        now = tick_s - left_s
        await connection.begin_stream()
        await connection.closed_by_peer()

    async with serving(handler, ClientTimeouts(tick_s, 2 * tick_s), clock=lambda: now) as (
        client,
        server,
    ):
        stream = client.generate(server.endpoint, REQUEST)
        async with asyncio.timeout(WAIT_S):
            assert await anext(stream) == Ping()
        await stream.aclose()


async def test_idle_connections_expire() -> None:
    closed = asyncio.Event()

    async def handler(connection: ScriptedConnection) -> None:
        await connection.request()
        await connection.send_json(b'{"prompt_tokens": 1}')
        await connection.closed_by_peer()
        closed.set()

    limits = PoolLimits(idle_expiry_s=0.05)
    async with serving(handler, limits=limits) as (client, server):
        await client.count_tokens(server.endpoint, MODEL, CountTokensRequest(TextPrompt("hi")))
        await asyncio.wait_for(closed.wait(), WAIT_S)


async def test_idle_connections_of_different_ages_expire_without_a_complaint() -> None:
    """The sweep closes the older one while the younger one stays idle."""
    open_connections = 0
    release = asyncio.Event()

    async def handler(connection: ScriptedConnection) -> None:
        nonlocal open_connections
        open_connections += 1
        await connection.request()
        if open_connections == 1:
            await release.wait()
        await connection.send_json(b'{"prompt_tokens": 1}')
        await connection.closed_by_peer()
        open_connections -= 1

    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    limits = PoolLimits(idle_expiry_s=0.2)
    count = CountTokensRequest(TextPrompt("hi"))
    async with serving(handler, limits=limits) as (client, server):
        first = asyncio.create_task(client.count_tokens(server.endpoint, MODEL, count))
        await wait_until_async(lambda: open_connections == 1)
        await client.count_tokens(server.endpoint, MODEL, count)
        loop.call_later(0.1, release.set)
        await first
        await wait_until_async(lambda: open_connections == 0)
    assert complaints == []
