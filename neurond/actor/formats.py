"""Requests that are to be held to a format wait here until it is compiled, beside the loop.

One thread compiles, in the order of arrival: a format takes up to some 100 ms, in which the loop
goes on stepping. There are never more of them than requests in flight.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from cortex_core.errors import CortexError, ErrorInfo, InternalError
from cortex_core.ids import RequestId
from neurond.actor.mailbox import Mailbox
from neurond.engine.batch import Grammar
from neurond.engine.engine import EngineRequest
from neurond.engine.triggers import DeviceFormat

if TYPE_CHECKING:
    from neurond.engine.grammar import GrammarCompiler

STACK_BYTES: Final = 8 << 20
"""What has compiled with a quarter of it before does so here."""


class FormatCompiler(Protocol):
    """What turns the format of a request into what its output is held to, for one model."""

    def compile(
        self, response_format: bytes, *, ends: Iterable[int], replayed: Sequence[int]
    ) -> Grammar | None:
        """Return the grammar of a `DeviceFormat`, given as JSON, after the output `replayed`.

        Called from one thread, which is not the loop's, also after the model was unloaded. None
        where the format is a favour that cannot be done: the answer is free.

        Args:
            ends: the tokens that end the answer.

        Raises:
            CortexError: there is none for this format and this model.
        """
        ...


class ModelFormats:
    """A `FormatCompiler` that imports llguidance, for 0.1 s, when there is something to compile."""

    def __init__(self, folder: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """See `GrammarCompiler`."""
        self._args = folder, vocab_size, eos_token_ids
        self._compiler: GrammarCompiler | None = None

    def compile(
        self, response_format: bytes, *, ends: Iterable[int], replayed: Sequence[int]
    ) -> Grammar | None:
        """See `FormatCompiler.compile`."""
        if self._compiler is None:
            from neurond.engine.grammar import GrammarCompiler

            self._compiler = GrammarCompiler(*self._args)
        wanted = msgspec.json.decode(response_format, type=DeviceFormat)
        if wanted.triggers is not None:
            return self._compiler.compile_triggered(wanted, ends=ends, replayed=replayed)
        return self._compiler.compile(response_format, ends=ends, replayed=replayed)


@dataclass(slots=True, eq=False)
class _Job:
    """`wanted` is written by the loop and only read by the thread."""

    request: EngineRequest
    response_format: bytes
    compiler: FormatCompiler
    wanted: bool = True


class FormatQueue:
    """Made and called by the loop's thread; runs a thread of its own that ends with the process.

    Attributes:
        wakeup_fd: readable while `take` may have something to return.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._done: Mailbox[tuple[_Job, Grammar | ErrorInfo | None]] = Mailbox()
        self._waiting: dict[RequestId, _Job] = {}
        self._num_undone = 0
        self.wakeup_fd = self._done.wakeup_fd
        own_bytes = threading.stack_size(STACK_BYTES)
        threading.Thread(target=self._run, name="formats", daemon=True).start()
        threading.stack_size(own_bytes)

    def put(self, request: EngineRequest, response_format: bytes, compiler: FormatCompiler) -> None:
        """Have a request's format compiled, which `take` returns then, unless it is dropped."""
        job = _Job(request, response_format, compiler)
        self._waiting[request.request_id] = job
        self._num_undone += 1
        self._jobs.put(job)

    @property
    def is_busy(self) -> bool:
        """Whether the thread has something to do; it may keep the interpreter to itself then."""
        return self._num_undone > 0

    def drop(self, request_id: RequestId) -> bool:
        """Forget a request that has ended; whether it was waiting here."""
        job = self._waiting.pop(request_id, None)
        if job is not None:
            job.wanted = False
        return job is not None

    def take(self) -> list[tuple[EngineRequest, Grammar | ErrorInfo | None]]:
        """Return requests and what was compiled, or why it cannot be, without those dropped."""
        results = []
        for job, outcome in self._done.take():
            self._num_undone -= 1
            if job.wanted:
                del self._waiting[job.request.request_id]
                results.append((job.request, outcome))
        return results

    def _run(self) -> None:
        # No local may hold a job, with a prompt and its images, until the next one comes.
        while True:
            self._done.put(_done(self._jobs.get()))


def _done(job: _Job) -> tuple[_Job, Grammar | ErrorInfo | None]:
    return job, _compile(job) if job.wanted else None


def _compile(job: _Job) -> Grammar | ErrorInfo | None:
    request = job.request
    ends = (*request.eos_token_ids, *request.sampling.stop_token_ids)
    try:
        return job.compiler.compile(job.response_format, ends=ends, replayed=_replayed(request))
    except CortexError as ex:
        return ex.info()
    except BaseException as ex:  # noqa: BLE001 - a library's panic, too, fails this request alone
        return InternalError(f"cannot compile the format: {type(ex).__name__}: {ex}").info()


def _replayed(request: EngineRequest) -> Sequence[int]:
    tokens = request.prompt_token_ids
    return tokens[len(tokens) - request.num_replayed_tokens :]
