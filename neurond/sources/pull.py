"""Fetching a model and preparing it: once, by one process at a time, resumable at any point."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InvalidRequest,
    ModelLoadFailed,
    Timeout,
    error_from_info,
)
from cortex_core.ids import ModelId, parse_model_id
from cortex_core.ipc.child import DeathPipe, python_command
from neurond.sources.base import FetchProgress, Report, Source
from neurond.sources.file import FileSource
from neurond.sources.hf import HfSource
from neurond.sources.prepared import PreparedModel, read_manifest
from neurond.sources.pypi import PypiSource
from neurond.sources.store import ModelStore

PREPARE_TIMEOUT_S: Final = 600.0


def default_sources(
    *, pypi_index_url: str | None = None, hf_endpoint: str | None = None
) -> dict[str, Source]:
    """Return the sources by scheme. None leaves an address to the environment and its default."""
    return {
        "pypi": PypiSource(pypi_index_url),
        "file": FileSource(),
        "hf": HfSource(hf_endpoint),
    }


def pull(
    model_id: ModelId, store: ModelStore, sources: Mapping[str, Source], report: Report
) -> PreparedModel:
    """Return the model's manifest, fetching and preparing it first where that is still to be done.

    Blocks. Whatever interrupts it, another call goes on from there.

    Raises:
        InvalidRequest: no source has this scheme.
        ModelNotFound: the source does not know the model.
        ModelLoadFailed: it cannot be fetched or prepared.
        Timeout: another process held the model's lock for too long.
    """
    ref = parse_model_id(model_id, default_scheme="")
    source = sources.get(ref.scheme)
    if source is None:
        raise InvalidRequest(
            f"cannot fetch {model_id}: unknown source {ref.scheme!r}, expected one of "
            f"{', '.join(sorted(sources))}",
            param="model",
        )
    if found := store.find(model_id):
        return found
    try:
        return _pull_locked(model_id, ref.name, store, source, report)
    except OSError as ex:
        raise ModelLoadFailed(
            f"cannot fetch {model_id} into {store.folder(model_id)}: {ex}; see to the rights of "
            "state_dir and what is in it, then pull again"
        ) from ex


def _pull_locked(
    model_id: ModelId, name: str, store: ModelStore, source: Source, report: Report
) -> PreparedModel:
    with store.lock(model_id, waiting=lambda: report(FetchProgress("queued"))) as folder:
        if found := store.find(model_id):
            return found
        if not store.is_fetched(model_id):
            _fetch(name, folder, source, report)
        report(FetchProgress("preparing"))
        return run_prepare(folder, model_id)


def _fetch(name: str, folder: Path, source: Source, report: Report) -> None:
    report(FetchProgress("fetching"))
    try:
        source.fetch(name, folder, report)
    except CortexError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless something is kept in it for the next try
        raise


def run_prepare(
    folder: Path, model_id: ModelId, *, timeout_s: float = PREPARE_TIMEOUT_S
) -> PreparedModel:
    """Prepare `folder` in a process of its own, which dies with this one; returns the manifest.

    Call it from the main thread, see `cortex_core.ipc.child`.

    Raises:
        ModelLoadFailed: what the process reported, or how it died.
        Timeout: it took longer than `timeout_s` and was killed.
    """
    pipe = DeathPipe()
    arguments = [str(folder), model_id, str(pipe.read_fd), str(os.getpid())]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            python_command("neurond.sources.prepare", *arguments),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            pass_fds=(pipe.read_fd,),
        )
    except subprocess.TimeoutExpired as ex:
        raise Timeout(f"cannot prepare {model_id}: not done after {timeout_s:.0f} s") from ex
    finally:
        pipe.close()
    if done.returncode == 0:
        return read_manifest(folder)
    last = done.stdout.decode("utf-8", "replace").strip().rpartition("\n")[2]
    try:
        raise error_from_info(msgspec.json.decode(last, type=ErrorInfo))
    except UNDECODABLE:
        tail = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ModelLoadFailed(
            f"cannot prepare {model_id}: the prepare process ended with status "
            f"{done.returncode}: {tail or 'no message'}"
        ) from None
