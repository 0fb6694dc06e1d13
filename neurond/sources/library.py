"""The daemon's view of the models on disk; fetches in child processes."""

import asyncio
import contextlib
import logging
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import CortexError, ModelLoadFailed, error_from_info
from cortex_core.ids import ModelId
from cortex_core.ipc.child import python_command
from cortex_core.logs import kv
from cortex_core.neuron_api import LoadProgress
from neurond.sources.base import FetchProgress
from neurond.sources.fetch_messages import (
    Fetched,
    FetchFailed,
    FetchLine,
    FetchOrder,
    Progressed,
    SourceSettings,
)
from neurond.sources.prepared import PreparedModel
from neurond.sources.store import ModelStore
from neurond.supervisor.ports import ProgressCallback

TERMINATE_GRACE_S: Final = 5.0
ETA_AFTER_S: Final = 1.0
"""A rate is worth nothing before."""

_log = logging.getLogger(__name__)
_lines: msgspec.json.Decoder[FetchLine] = msgspec.json.Decoder(FetchLine)


class Library:
    """Implements `neurond.supervisor.ports.ModelLibrary` on a `ModelStore`.

    Lives on the daemon's loop, which must run in the main thread: fetches die with that thread.
    """

    def __init__(self, store: ModelStore, state_dir: Path, sources: SourceSettings) -> None:
        self._store = store
        self._state_dir = state_dir
        self._sources = sources

    def prepared(self) -> list[PreparedModel]:
        """Return every model that is complete on disk."""
        return self._store.models()

    def find(self, model_id: ModelId) -> PreparedModel | None:
        """Return a model that is complete on disk, else None."""
        return self._store.find(model_id)

    def folder(self, model_id: ModelId) -> Path:
        """Return where a model lies, or will lie."""
        return self._store.folder(model_id)

    async def ensure(self, model_id: ModelId, on_progress: ProgressCallback) -> Path:
        """See `ModelLibrary.ensure`. Cancelling kills the fetch; what it has stays for the next."""
        if self._store.find(model_id) is None:
            await self._fetch(model_id, on_progress)
        return self._store.folder(model_id)

    async def renew(self) -> None:
        """Prepare again, one by one, what another version of this program has prepared.

        Nobody may ever ask for such a model: until then nobody sees it. One that fails is logged
        and left for a load or a pull. Cancelling stops it, as it does `ensure`.
        """
        for model_id in self._store.outdated():
            try:
                await self.ensure(model_id, lambda _: None)
            except (CortexError, OSError) as ex:
                _log.warning("model not prepared again", extra=kv(model=model_id, cause=ex))
            else:
                _log.info("model prepared again", extra=kv(model=model_id))

    async def _fetch(self, model_id: ModelId, on_progress: ProgressCallback) -> None:
        order = FetchOrder(model_id, str(self._state_dir), self._sources)
        argv = python_command("neurond.sources.fetch", msgspec.json.encode(order).decode())
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=None)
        try:
            outcome = await _follow(process, on_progress)
            status = await process.wait()
        finally:
            await _stop(process)
        if isinstance(outcome, FetchFailed):
            raise error_from_info(outcome.error)
        if outcome is None:
            raise ModelLoadFailed(
                f"cannot fetch {model_id}: the fetch process ended with status {status}"
            )


async def _follow(process: Process, on_progress: ProgressCallback) -> Fetched | FetchFailed | None:
    """Pass on progress; returns the outcome, None where the process ended without one."""
    assert process.stdout is not None
    estimate = Estimate()
    async for line in process.stdout:
        message = _lines.decode(line)
        if not isinstance(message, Progressed):
            return message
        on_progress(estimate.update(message.progress, time.monotonic()))
    return None


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        process.terminate()
        try:
            async with asyncio.timeout(TERMINATE_GRACE_S):
                await process.wait()
        finally:
            # Also where a second cancellation cuts the grace time short.
            if process.returncode is None:
                process.kill()
    await process.wait()


class Estimate:
    """Bytes to a share and a remaining time. Pure; the rate is that of this stage alone."""

    def __init__(self) -> None:
        self._stage = ""
        self._began_s = 0.0
        self._began_bytes = 0

    def update(self, progress: FetchProgress, now: float) -> LoadProgress:
        """Return what to tell; `now` is in seconds of any clock that only goes forward."""
        if progress.stage != self._stage:
            self._stage, self._began_s = progress.stage, now
            self._began_bytes = progress.done_bytes
        total = progress.total_bytes
        if not total:
            return LoadProgress(progress.stage)
        share = min(1.0, progress.done_bytes / total)
        return LoadProgress(progress.stage, share, self._eta_s(progress.done_bytes, total, now))

    def _eta_s(self, done_bytes: int, total_bytes: int, now: float) -> float | None:
        elapsed_s, gained = now - self._began_s, done_bytes - self._began_bytes
        if elapsed_s < ETA_AFTER_S or gained <= 0:
            return None
        return max(0, total_bytes - done_bytes) * elapsed_s / gained
