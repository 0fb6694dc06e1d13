"""Commands that prepare a peer, and virtual environments for it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.peers.cache import Cache
from bench.peers.processes import stop

PIP_VARIABLE: Final = "PIP_FLAGS"
"""Options for every `pip install`, as in the Makefile: where PyTorch's CPU build comes from."""
LIMIT_S: Final = 3600.0
"""Of one command: llama.cpp is compiled in some minutes, vLLM is some GB to fetch."""
LAST_LINES: Final = 3


class Unavailable(Exception):
    """A peer cannot be had on this machine; the message is what its row of the table says."""


def run(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, with its output added to `log`.

    Raises:
        Unavailable: it cannot be started, fails, or takes too long; with its last words.
    """
    with log.open("ab") as output:
        output.write(f"$ {shlex.join(command)}\n".encode())
        output.flush()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
            )
        except OSError as ex:
            raise Unavailable(f"cannot start {command[0]}: {ex.strerror}") from ex
    name = Path(command[0]).name
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired as ex:
        raise Unavailable(f"{name} took more than {LIMIT_S:g} s: {last_words(log)}") from ex
    finally:
        if process.returncode is None:
            stop(process)
    if status:
        raise Unavailable(f"{name} failed with status {status}: {last_words(log)}")


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
