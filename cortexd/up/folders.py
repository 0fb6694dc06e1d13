"""What lies where in the state folder of `cortex up`, and who may use it."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import ConfigError
from cortex_core.ipc.socket_paths import UNIX_PATH_MAX_BYTES
from cortexd.folder_lock import locked

_LONGEST_SOCKET_NAME_BYTES: Final = 48
"""Room for `/neuron/<device>-<boot>.control.sock`."""


class UpFolders(msgspec.Struct, frozen=True):
    """Everything but sockets stays in `state` for the next time."""

    state: Path
    run: Path

    @property
    def cortex_toml(self) -> Path:
        return self.state / "cortex.toml"

    @property
    def models_toml(self) -> Path:
        return self.state / "models.toml"

    @property
    def neuron_toml(self) -> Path:
        return self.state / "neuron.toml"

    @property
    def neuron_state(self) -> Path:
        return self.state / "neuron"

    @property
    def gateway_state(self) -> Path:
        return self.state / "gateway"

    @property
    def gateway_run(self) -> Path:
        return self.run / "cortex"

    @property
    def neuron_run(self) -> Path:
        return self.run / "neuron"

    def log(self, name: str) -> Path:
        """Return the file that the output of a daemon goes to."""
        return self.state / "logs" / f"{name}.log"


def folders_of(state_dir: Path) -> UpFolders:
    """Return the folders for a state folder; nothing is made."""
    state = state_dir.absolute()
    return UpFolders(state=state, run=_run_dir(state))


def gateway_run_dir(state_dir: Path) -> Path:
    """Return where a `cortex up` with this state folder has its gateway's sockets."""
    return folders_of(state_dir).gateway_run


@contextlib.contextmanager
def occupied(folders: UpFolders) -> Iterator[None]:
    """Make the folders and keep others out; at the end the sockets' folder is removed.

    Raises:
        ConfigError: a folder cannot be made, or another `cortex up` uses it.
    """
    try:
        for folder in (folders.log("x").parent, folders.neuron_state):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot use state folder {folders.state}: {error.strerror}; choose another with "
            "--state-dir"
        ) from error
    other = "another 'cortex up' runs in it; stop that one, or choose others with --state-dir"
    with locked(folders.state, otherwise=other):
        # Whatever lies there now was left by one that was killed.
        shutil.rmtree(folders.run, ignore_errors=True)
        try:
            folders.run.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise ConfigError(f"cannot make folder {folders.run}: {error.strerror}") from error
        try:
            yield
        finally:
            shutil.rmtree(folders.run, ignore_errors=True)


def _run_dir(state: Path) -> Path:
    own = state / "run"
    if len(os.fsencode(own)) + _LONGEST_SOCKET_NAME_BYTES <= UNIX_PATH_MAX_BYTES:
        return own
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"cortex-{os.getuid()}-{digest}"
