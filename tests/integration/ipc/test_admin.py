"""A call over the admin socket is answered, refused or timed out; none hurts the daemon."""

import asyncio
import logging
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from cortex_core.errors import (
    ConfigError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    NotFound,
    Overloaded,
    ProtocolError,
    ShuttingDown,
    Timeout,
)
from cortex_core.ipc.admin import MAX_CALLS, AdminClient, AdminServer, Handler, typed
from cortex_core.ipc.sockets import ZmqContext, bind_socket
from tests.fakes.waiting import WAIT_S, wait_until_async


class LoadArgs(msgspec.Struct, frozen=True):
    model: str
    force: bool = False


class Loaded(msgspec.Struct, frozen=True):
    model: str
    size_mb: int


async def load(args: LoadArgs, progress: Callable[[object], None]) -> Loaded:
    progress({"done": 0.5})
    progress({"done": 1.0})
    return Loaded(args.model, 100)


async def echo(args: dict[str, Any], progress: Callable[[object], None]) -> object:
    return args


async def missing(args: dict[str, Any], progress: Callable[[object], None]) -> object:
    raise ModelNotFound("cannot find model x: no such model", param="model", retry_after_s=2.0)


async def broken(args: dict[str, Any], progress: Callable[[object], None]) -> object:
    raise ZeroDivisionError("oops")


async def unsendable(args: dict[str, Any], progress: Callable[[object], None]) -> object:
    return object()


HANDLERS: dict[str, Handler] = {
    "load": typed(LoadArgs, load),
    "echo": echo,
    "missing": missing,
    "broken": broken,
    "unsendable": unsendable,
}


@asynccontextmanager
async def serving(
    context: ZmqContext, path: Path, handlers: dict[str, Handler] | None = None
) -> AsyncIterator[AdminServer]:
    server = AdminServer(path, HANDLERS if handlers is None else handlers, context=context)
    try:
        yield server
    finally:
        await server.close()


async def call(path: Path, verb: str, **args: Any) -> Any:
    """Call from a thread, as a command line in another process would."""

    def run() -> Any:
        with AdminClient(path) as client:
            return client.call(verb, **args)

    return await asyncio.wait_for(asyncio.to_thread(run), WAIT_S)


async def test_arguments_go_in_and_plain_data_comes_out(context, path) -> None:
    async with serving(context, path):
        assert await call(path, "echo", a=1, b=["x", None], c={"d": 2.5}) == {
            "a": 1,
            "b": ["x", None],
            "c": {"d": 2.5},
        }
        assert await call(path, "echo") == {}


async def test_typed_verb_reports_progress_and_returns_a_struct(context, path) -> None:
    seen: list[Any] = []
    async with serving(context, path):
        result = await call(path, "load", model="m", force=True, on_progress=seen.append)
    assert msgspec.convert(result, Loaded) == Loaded("m", 100)
    assert seen == [{"done": 0.5}, {"done": 1.0}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "cannot read arguments: model: missing; expected a string"),
        ({"model": 7}, "cannot read arguments: model: expected a string, got 7"),
        (
            {"model": "m", "forse": True},
            "cannot read arguments: forse: unknown key; did you mean 'force'?",
        ),
    ],
)
async def test_wrong_arguments_are_named(context, path, args: dict[str, Any], message: str) -> None:
    async with serving(context, path):
        with pytest.raises(InvalidRequest) as caught:
            await call(path, "load", **args)
    assert caught.value.message == message


async def test_errors_arrive_as_they_were_raised(context, path) -> None:
    async with serving(context, path):
        with pytest.raises(ModelNotFound, match="cannot find model x") as caught:
            await call(path, "missing")
    assert (caught.value.param, caught.value.retry_after_s) == ("model", 2.0)


async def test_unknown_verb_names_the_known_ones(context, path) -> None:
    async with serving(context, path):
        with pytest.raises(NotFound) as caught:
            await call(path, "laod")
    assert caught.value.message == (
        "cannot run 'laod': unknown verb; did you mean 'load'? "
        "known are broken, echo, load, missing, unsendable"
    )


@pytest.mark.parametrize("verb", ["broken", "unsendable"])
async def test_defects_are_answered_and_the_server_goes_on(context, path, caplog, verb) -> None:
    async with serving(context, path):
        with caplog.at_level(logging.CRITICAL), pytest.raises(InternalError, match="cannot run"):
            await call(path, verb)
        assert await call(path, "echo", n=1) == {"n": 1}


async def test_nobody_at_the_path_is_said_so(context, path) -> None:
    with pytest.raises(NodeUnavailable, match=rf"cannot reach {path}: is the daemon running\?"):
        await call(path, "echo")
    async with serving(context, path):
        pass
    with pytest.raises(NodeUnavailable, match=r"is the daemon running\?"):
        await call(path, "echo")


async def test_silence_times_out_and_the_client_can_go_on(context, path) -> None:
    release = asyncio.Event()

    async def wait(args: dict[str, Any], progress: Callable[[object], None]) -> object:
        await release.wait()
        return "late"

    def run() -> Any:
        with AdminClient(path) as client:
            with pytest.raises(Timeout, match=r"cannot finish wait: .* no answer for 0.05 s"):
                client.call("wait", silence_s=0.05)
            loop.call_soon_threadsafe(release.set)
            return client.call("echo", n=2)

    loop = asyncio.get_running_loop()
    async with serving(context, path, {"wait": wait, "echo": echo}):
        assert await asyncio.wait_for(asyncio.to_thread(run), WAIT_S) == {"n": 2}


async def test_progress_keeps_a_slow_call_alive(context, path) -> None:
    beats: asyncio.Queue[int] = asyncio.Queue()

    async def slow(args: dict[str, Any], progress: Callable[[object], None]) -> object:
        while (beat := await beats.get()) < 3:
            progress(beat)
        return "done"

    loop = asyncio.get_running_loop()

    def on_progress(value: int) -> None:
        loop.call_soon_threadsafe(beats.put_nowait, value + 1)

    async with serving(context, path, {"slow": slow}):
        beats.put_nowait(0)
        assert await call(path, "slow", timeout_s=WAIT_S, on_progress=on_progress) == "done"


async def test_daemon_that_goes_away_is_noticed_before_the_timeout(context, path) -> None:
    started = threading.Event()

    async def vanish(args: dict[str, Any], progress: Callable[[object], None]) -> object:
        started.set()
        await asyncio.Event().wait()
        return None

    server = AdminServer(path, {"vanish": vanish}, context=context)
    calling = asyncio.create_task(call(path, "vanish", timeout_s=60.0))
    await wait_until_async(started.is_set)
    await server.close()
    with pytest.raises((NodeUnavailable, ShuttingDown)):
        await calling


async def test_calls_are_bounded(context, path) -> None:
    release = asyncio.Event()
    running: list[int] = []

    async def wait(args: dict[str, Any], progress: Callable[[object], None]) -> object:
        running.append(args["n"])
        await release.wait()
        return args["n"]

    def flood() -> list[str]:
        with AdminClient(path) as client:
            for number in range(MAX_CALLS):
                with pytest.raises(Timeout):
                    client.call("wait", n=number, silence_s=0.001)
            with pytest.raises(Overloaded) as caught:
                client.call("wait", n=99, silence_s=WAIT_S)
            return [caught.value.message]

    async with serving(context, path, {"wait": wait}):
        messages = await asyncio.wait_for(asyncio.to_thread(flood), WAIT_S)
        assert messages == [f"cannot run wait: {MAX_CALLS} calls are running"]
        assert running == list(range(MAX_CALLS))
        release.set()


async def test_socket_is_for_owner_and_group_and_is_removed(context, path) -> None:
    async with serving(context, path) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(ConfigError, match="another process serves it"):
            AdminServer(path, {}, context=context)
        await server.close()
    assert not path.exists()


async def test_frames_are_as_documented(context, path, closing) -> None:
    socket = closing(context.socket(zmq.DEALER))
    async with serving(context, path):
        socket.connect(f"ipc://{path}")
        socket.send(msgspec.msgpack.encode({"verb": "load", "id": 7, "args": {"model": "m"}}))
        frames: list[Any] = []

        def receive() -> bool:
            while socket.poll(0):
                frames.append(msgspec.msgpack.decode(socket.recv()))
            return len(frames) == 3

        await wait_until_async(receive)
    assert frames == [
        {"id": 7, "progress": {"done": 0.5}},
        {"id": 7, "progress": {"done": 1.0}},
        {"id": 7, "ok": True, "result": {"model": "m", "size_mb": 100}},
    ]


async def test_garbage_on_the_socket_harms_nobody(context, path, closing, caplog) -> None:
    socket = closing(context.socket(zmq.DEALER))
    async with serving(context, path):
        socket.connect(f"ipc://{path}")
        with caplog.at_level(logging.ERROR):
            socket.send(b"\xc1garbage")
            socket.send(msgspec.msgpack.encode({"verb": 3}))
            socket.send(b"\x83\xa4verb\xa1x\xa2id\x01\xa4args\x81\xa1a" + b"\x91" * 100_000)
            assert await call(path, "echo", n=1) == {"n": 1}
            await wait_until_async(lambda: len(caplog.records) == 3)


@pytest.mark.parametrize("answer", [b"\xc1", b"\x82\xa2id\x01\xa6result" + b"\x91" * 100_000])
async def test_an_answer_that_cannot_be_read_is_said_so(context, path, closing, answer) -> None:
    router = closing(bind_socket(context, zmq.ROUTER, path, hwm_messages=10)).socket
    calling = asyncio.create_task(call(path, "echo"))
    await wait_until_async(lambda: router.poll(0))
    peer, _ = router.recv_multipart()
    router.send_multipart([peer, answer])
    with pytest.raises(ProtocolError, match="cannot decode message"):
        await asyncio.wait_for(calling, WAIT_S)
