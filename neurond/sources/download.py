"""One file over HTTP: resumable, checked, and honest about a full disk."""

import contextlib
import hashlib
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.disk import disk_full, is_disk_full, require_space
from neurond.sources.http import (
    IDLE_TIMEOUT_S,
    NETWORK_ERRORS,
    Response,
    open_url,
    without_credentials,
)

CHUNK_BYTES: Final = 1024 * 1024
REPORT_INTERVAL_S: Final = 0.1
MAX_ATTEMPTS: Final = 5
"""Tries in a row without a single new byte."""
RETRY_PAUSE_S: Final = (0.5, 1.0, 2.0, 4.0)
PARTIAL: Final = ".partial"


class RemoteFile(NamedTuple):
    """A file to download, and what is known of it."""

    name: str
    """The name it gets in the folder of downloads."""
    url: str
    size_bytes: int | None
    sha256: str | None
    token: str | None = None


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Interrupted(Exception):
    """The connection ended early; what came is on disk."""


class Downloader:
    """Downloads files into one folder, counting bytes over all of them.

    Args:
        folder: where files go, as `NAME.partial` until they are whole and checked.
        report: called with the bytes done so far, over all files; at most ten times a second.
        idle_timeout_s: longest silence of a server before the transfer is tried again.
        pause: waits between tries; replaced in tests.
    """

    def __init__(
        self,
        folder: Path,
        report: Callable[[int], None],
        *,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._report = report
        self._idle_timeout_s = idle_timeout_s
        self._pause = pause
        self._finished_bytes = 0
        self._reported_at = 0.0

    def fetch(self, file: RemoteFile) -> Path:
        """Return the path of `file`, downloaded, checked and complete; a no-op if it is there.

        Raises:
            ModelNotFound: the server does not have it.
            ModelLoadFailed: the transfer failed for good, or the bytes are not the right ones.
        """
        target = self._folder / file.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = self._folder / (file.name + PARTIAL)
            self._fetch_checked(file, partial)
            partial.rename(target)
        self._finished_bytes += target.stat().st_size
        self._report(self._finished_bytes)
        return target

    def _fetch_checked(self, file: RemoteFile, partial: Path) -> None:
        """Fill `partial`; bytes left by an earlier try are distrusted once, if the sum is wrong."""
        resumed = _size(partial) > 0
        digest = self._transfer(file, partial)
        if file.sha256 is None or digest == file.sha256:
            return
        partial.unlink()
        if resumed:
            digest = self._transfer(file, partial)
            if digest == file.sha256:
                return
            partial.unlink()
        raise ModelLoadFailed(
            f"cannot fetch {file.name}: its sha256 is {digest}, the source announces "
            f"{file.sha256}; nothing was kept"
        )

    def _transfer(self, file: RemoteFile, partial: Path) -> str:
        attempt = 0
        while True:
            before = _size(partial)
            try:
                return self._attempt(file, partial)
            except _Interrupted as ex:
                attempt = 1 if _size(partial) > before else attempt + 1
                if attempt >= MAX_ATTEMPTS:
                    raise ModelLoadFailed(
                        f"cannot fetch {file.name} from {without_credentials(file.url)}: {ex}; "
                        f"{_size(partial)} bytes are kept, pull again to go on from there"
                    ) from ex
                self._pause(RETRY_PAUSE_S[min(attempt, len(RETRY_PAUSE_S)) - 1])

    def _attempt(self, file: RemoteFile, partial: Path) -> str:
        """Go on from the end of `partial` to the end of the file. Returns the sha256 of it all."""
        have = _size(partial)
        if file.size_bytes is not None:
            if have == file.size_bytes:
                return _sha256_of(partial, have).hexdigest()
            if have > file.size_bytes:
                partial.unlink()
                have = 0
            require_space(self._folder, file.size_bytes - have, what=file.name)
        with self._open(file, have) as response:
            if have and response.status != 206:
                partial.unlink()
                have = 0
            sha256 = _sha256_of(partial, have)
            self._copy(response, partial, sha256, have, file)
        got = _size(partial)
        if file.size_bytes is not None and got < file.size_bytes:
            raise _Interrupted(f"the connection ended at byte {got} of {file.size_bytes}")
        return sha256.hexdigest()

    def _open(self, file: RemoteFile, have: int) -> Response:
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            return open_url(
                file.url, headers=headers, token=file.token, idle_timeout_s=self._idle_timeout_s
            )
        except urllib.error.HTTPError as ex:
            ex.close()
            shown = without_credentials(file.url)
            if ex.code in {404, 410}:
                raise ModelNotFound(f"cannot find {file.name}: {shown} answers {ex.code}") from ex
            if ex.code == 416:
                # What is on disk is longer than what the server has: it is of another file.
                (self._folder / (file.name + PARTIAL)).unlink(missing_ok=True)
                raise _Interrupted("the server refuses to go on from where we are") from ex
            if ex.code == 429 or ex.code >= 500:
                raise _Interrupted(f"the server answers {ex.code} {ex.reason}") from ex
            raise ModelLoadFailed(
                f"cannot fetch {file.name}: {shown} answers {ex.code} {ex.reason}"
            ) from ex
        except NETWORK_ERRORS as ex:
            raise _Interrupted(str(ex) or type(ex).__name__) from ex

    def _copy(
        self, response: Response, partial: Path, sha256: _Hash, have: int, file: RemoteFile
    ) -> None:
        done = have
        with partial.open("ab", buffering=0) as out:
            while chunk := self._read(response):
                try:
                    _write_all(out.write, chunk)
                except OSError as ex:
                    if is_disk_full(ex):
                        raise disk_full(file.name, self._folder, ex) from ex
                    raise ModelLoadFailed(f"cannot write {partial}: {ex}") from ex
                sha256.update(chunk)
                done += len(chunk)
                self._tick(done)

    @staticmethod
    def _read(response: Response) -> bytes:
        try:
            return response.read1(CHUNK_BYTES)
        except NETWORK_ERRORS as ex:
            raise _Interrupted(str(ex) or type(ex).__name__) from ex

    def _tick(self, done_bytes: int) -> None:
        now = time.monotonic()
        if now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            self._report(self._finished_bytes + done_bytes)


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a whole file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of(path: Path, length: int) -> _Hash:
    sha256 = hashlib.sha256()
    if length:
        with path.open("rb") as file:
            while length > 0 and (chunk := file.read(min(CHUNK_BYTES, length))):
                sha256.update(chunk)
                length -= len(chunk)
    return sha256


def _write_all(write: Callable[[memoryview], int | None], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[write(rest) or 0 :]


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
