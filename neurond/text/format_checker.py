"""Trying formats out before a device is asked to keep to them.

A library in the supervisor or in an actor that overflows its stack, or compiles for minutes, takes
everybody's requests along. So each format that was not seen lately, accepted or refused, is
compiled once in another process (`neurond.text.format_check`), where each has bounds. It starts
with the first format, and again where one has broken it or left it large: starting it takes a
hundred times as long as compiling.
"""

import asyncio
import contextlib
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InternalError,
    InvalidRequest,
    Overloaded,
    error_from_info,
)
from cortex_core.ipc.child import python_command
from neurond.text.formats import SIZE, Trial

MAX_KNOWN: Final = 1024
MAX_PENDING: Final = 64
RETRY_AFTER_S: Final = 1.0
PARAM: Final = "response_format"


@dataclass(slots=True)
class _Shared:
    """A trial, for all who wait for the same format."""

    task: asyncio.Task[ErrorInfo | None]
    waiting: int = 0


class FormatChecker:
    """Checks formats, one at a time. Lives on the daemon's loop; owns its process until `close`.

    Args:
        max_pending: formats that are tried or wait for it, by however many requests.
    """

    def __init__(self, *, max_pending: int = MAX_PENDING) -> None:
        self._max_pending = max_pending
        self._trials: dict[bytes, _Shared] = {}
        self._turn = asyncio.Lock()
        self._known: OrderedDict[bytes, ErrorInfo | None] = OrderedDict()
        """By digest, as a format can have 256 KB: why it was refused, None where it was not."""
        self._ready: asyncio.Task[Process] | None = None

    async def check(self, response_format: bytes) -> None:
        """Return where a format, given as JSON, can be compiled.

        Cancelling ends its trial, unless others wait for the same one.

        Raises:
            InvalidRequest: it is wrong, not supported, or takes too much of anything.
            Overloaded: there was no time for it.
        """
        key = blake2b(response_format).digest()
        if self._is_known(key):
            return
        trial = self._trials.get(key)
        if trial is None:
            if len(self._trials) >= self._max_pending:
                raise _overloaded(f"{len(self._trials)} others are waiting")
            trial = _Shared(asyncio.create_task(self._learn(key, response_format)))
            self._trials[key] = trial
        trial.waiting += 1
        try:
            await asyncio.wait({trial.task})
        finally:
            trial.waiting -= 1
            if not trial.waiting:
                del self._trials[key]
                if trial.task.cancel():  # the last one waits no longer
                    await asyncio.wait({trial.task})
        refusal = trial.task.result()
        if refusal is not None:
            raise error_from_info(refusal)

    async def close(self) -> None:
        """End the process, if it has started; nothing is checked any more."""
        if self._ready is not None:
            with contextlib.suppress(Overloaded):
                await _end(await self._ready)

    def _is_known(self, key: bytes) -> bool:
        """Whether a format was accepted; raises what it was refused with."""
        if key not in self._known:
            return False
        self._known.move_to_end(key)
        refusal = self._known[key]
        if refusal is not None:
            raise error_from_info(refusal)
        return True

    async def _learn(self, key: bytes, response_format: bytes) -> ErrorInfo | None:
        async with self._turn:
            try:
                refusal = await self._try(response_format)
            except CortexError as ex:
                refusal = ex.info()
        if refusal is None or isinstance(error_from_info(refusal), InvalidRequest):
            self._remember(key, refusal)
        return refusal

    def _remember(self, key: bytes, refusal: ErrorInfo | None) -> None:
        self._known[key] = refusal
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def _try(self, response_format: bytes) -> ErrorInfo | None:
        process = await self._take_process()
        is_spent = True
        try:
            trial = await _try_in(process, response_format)
            is_spent = trial.is_last
        finally:
            if is_spent:
                self._ready = asyncio.create_task(_start())
                await _end(process)
        return trial.error

    async def _take_process(self) -> Process:
        if self._ready is None or _has_ended(self._ready):
            self._ready = asyncio.create_task(_start())
        return await asyncio.shield(self._ready)


def _has_ended(starting: asyncio.Task[Process]) -> bool:
    if not starting.done():
        return False
    return starting.exception() is not None or starting.result().returncode is not None


async def _start() -> Process:
    argv = python_command("neurond.text.format_check")
    try:
        return await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    except OSError as ex:
        raise _overloaded(f"its process cannot be started: {ex.strerror}") from ex


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()


async def _try_in(process: Process, response_format: bytes) -> Trial:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(SIZE.pack(len(response_format)) + response_format)
        await process.stdin.drain()
        (size,) = SIZE.unpack(await process.stdout.readexactly(SIZE.size))
        said = await process.stdout.readexactly(size)
    except (ConnectionError, asyncio.IncompleteReadError):
        raise _why(await process.wait()) from None
    return msgspec.json.decode(said, type=Trial)


def _why(status: int) -> CortexError:
    """Return what the end of a process over a format means."""
    match -status:
        case signal.SIGALRM | signal.SIGKILL:
            return _overloaded("the host has no time or memory for it")
        case signal.SIGPROF:
            return _refuse("it takes too long to compile; make it smaller")
        case signal.SIGSEGV | signal.SIGABRT | signal.SIGBUS:
            return _refuse("it is nested too deeply, or takes too much memory to compile")
        case _:
            return InternalError(f"cannot check {PARAM}: the process ended with status {status}")


def _refuse(why: str) -> InvalidRequest:
    return InvalidRequest(f"cannot hold the answer to {PARAM}: {why}", param=PARAM)


def _overloaded(why: str) -> Overloaded:
    return Overloaded(f"cannot check {PARAM}: {why}; retry later", retry_after_s=RETRY_AFTER_S)
