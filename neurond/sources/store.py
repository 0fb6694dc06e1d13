"""The folder of models on this host: layout, listing, and one lock per model."""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cortex_core.errors import ModelLoadFailed, Timeout
from cortex_core.ids import ModelId
from cortex_core.model_folder import (
    FORMAT,
    MANIFEST,
    fetched_manifest,
    model_folder,
    models_folder,
    weights_present,
)
from neurond.sources.prepared import PreparedModel, read_manifest

LOCK_POLL_S: Final = 0.2
LOCK_TIMEOUT_S: Final = 6 * 3600.0
"""A fetch of a large model over a slow line; a dead holder's lock is freed by the kernel."""


class ModelStore:
    """The models under a state folder, see `cortex_core.model_folder`. The disk is the truth."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._read: dict[Path, tuple[int, PreparedModel]] = {}

    def folder(self, model_id: ModelId) -> Path:
        """Return where the model lies, or will lie."""
        return model_folder(self._state_dir, model_id)

    def find(self, model_id: ModelId) -> PreparedModel | None:
        """Return the manifest of a model that is complete on disk, else None.

        A manifest of another format, or one whose weights are gone or have another size, counts
        as absent: the next pull makes it anew, and see `outdated`.
        """
        return self._complete(self.folder(model_id))

    def is_fetched(self, model_id: ModelId) -> bool:
        """Tell whether all weights are there, even if another version of this program says so."""
        return fetched_manifest(self.folder(model_id)) is not None

    def models(self) -> list[PreparedModel]:
        """Return all complete models, by id."""
        found = [prepared for folder in self._folders() if (prepared := self._complete(folder))]
        return sorted(found, key=lambda prepared: prepared.model_id)

    def outdated(self) -> list[ModelId]:
        """Return, sorted, the models that another version of this program has prepared.

        Their weights are all there, and none of them is among `models`.
        """
        found = [manifest for folder in self._folders() if (manifest := fetched_manifest(folder))]
        return sorted(manifest.model_id for manifest in found if manifest.format != FORMAT)

    def _folders(self) -> list[Path]:
        return [
            manifest.parent for manifest in models_folder(self._state_dir).glob(f"*/*/{MANIFEST}")
        ]

    def _complete(self, folder: Path) -> PreparedModel | None:
        """Return the manifest of a complete model; read again only when the file has changed."""
        try:
            changed_ns = (folder / MANIFEST).stat().st_mtime_ns
            known = self._read.get(folder)
            if known is None or known[0] != changed_ns:
                known = self._read[folder] = (changed_ns, read_manifest(folder))
        except (OSError, ModelLoadFailed):
            self._read.pop(folder, None)
            return None
        return known[1] if weights_present(folder, known[1].weights) else None

    @contextlib.contextmanager
    def lock(
        self,
        model_id: ModelId,
        *,
        timeout_s: float = LOCK_TIMEOUT_S,
        waiting: Callable[[], None] = lambda: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> Iterator[Path]:
        """Hold the model's lock; yields its folder, which then exists.

        The lock is the kernel's and ends with its holder, however that ends.

        Args:
            model_id: the model.
            timeout_s: longest wait for another process that fetches the same model.
            waiting: called about five times a second while waiting.
            pause: waits between tries; replaced in tests.

        Raises:
            Timeout: the wait was too long.
        """
        folder = self.folder(model_id)
        folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        with (folder.parent / f".{folder.name}.lock").open("w") as file:
            while not _try_lock(file.fileno()):
                if time.monotonic() >= deadline:
                    raise Timeout(
                        f"cannot fetch {model_id}: another process has been fetching it for "
                        f"{timeout_s:.0f} s"
                    )
                waiting()
                pause(LOCK_POLL_S)
            yield folder


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
