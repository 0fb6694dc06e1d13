"""Commands that prepare a peer, and virtual environments for it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.peers.cache import Cache

PIP_VARIABLE: Final = "PIP_FLAGS"
"""Options for every `pip install`, as in the Makefile: where PyTorch's CPU build comes from."""
LAST_LINES: Final = 3


class Unavailable(Exception):
    """A peer cannot be had on this machine; the message is what its row of the table says."""


def run(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, with its output added to `log`.

    Raises:
        Unavailable: it cannot be started, or fails; with its last words.
    """
    with log.open("ab") as output:
        output.write(f"$ {shlex.join(command)}\n".encode())
        output.flush()
        try:
            subprocess.run(
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
            )
        except OSError as ex:
            raise Unavailable(f"cannot start {command[0]}: {ex.strerror}") from ex
        except subprocess.CalledProcessError as ex:
            raise Unavailable(
                f"{Path(command[0]).name} failed with status {ex.returncode}: {last_words(log)}"
            ) from ex


def last_words(log: Path) -> str:
    """Return the last lines of `log` in one line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return " / ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:])[-300:]


def environment(cache: Cache, name: str, requirements: Sequence[str]) -> Path:
    """Return the `bin` of a virtual environment with `requirements`, installed once.

    Raises:
        Unavailable: they cannot be installed.
    """
    folder = cache.folder("environments", name)
    wanted = "\n".join(requirements)
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        log = cache.log(f"install-{name}")
        run([sys.executable, "-m", "venv", "--clear", str(folder)], log)
        pip(folder / "bin", ["install", *requirements], log)
        stamp.write_text(wanted)
    return folder / "bin"


def pip(binaries: Path, arguments: Sequence[str], log: Path) -> None:
    """Run an environment's pip.

    Raises:
        Unavailable: it fails.
    """
    flags = shlex.split(os.environ.get(PIP_VARIABLE, "")) if arguments[0] == "install" else []
    command = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    run([*command, *flags], log)
