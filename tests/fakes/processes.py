"""Commands of ours as real processes, and a search for what they leave behind.

Every process that a `Command` starts, and every process below it, has the command's folder in its
environment; `survivors` finds them by that, whoever their parent is by now.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

MARK = "TEST_PROCESS_ROOT"
STOP_TIMEOUT_S = 180.0


class Command:
    """`python -m MODULE ARGUMENTS` in the background. Its output is added to `root`/NAME.log."""

    def __init__(self, root: Path, name: str, module: str, arguments: Sequence[str]) -> None:
        self.root = root
        self.log = root / f"{name}.log"
        self._argv = [sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        assert self._process is None or self._process.poll() is not None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=marked(self.root), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check_running(self) -> bool:
        """Return True; fail the test with the log if it has ended."""
        assert self.running, self.text()
        return True

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Return the exit status once it has ended; negative is the signal that killed it."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """`kill -9`, and reap it. Nothing happens if it has ended."""
        if self.running:
            self.process.kill()
            self.process.wait()

    def children(self, text: str) -> list[psutil.Process]:
        """Return the processes below it whose command line holds `text`, parents first."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in found if text in command_line(one)]

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def run_command(
    root: Path, module: str, *arguments: str, timeout_s: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=marked(root),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def marked(root: Path) -> dict[str, str]:
    """Return this process's environment with the mark of `root`."""
    return {**os.environ, MARK: str(root)}


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def survivors(root: Path) -> list[str]:
    """Return the processes, zombies aside, that were started for `root`."""
    mark = f"{MARK}={root}\0".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            has_mark = mark in environ.read_bytes()
            argv = (environ.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if has_mark:
            found.append(f"{environ.parent.name}: {argv.replace(bytes(1), b' ').decode()}")
    return found


def sockets_in(root: Path) -> list[Path]:
    """Return the socket files below `root`."""
    return [path for path in root.rglob("*") if path.is_socket()]


def kill_survivors(root: Path) -> None:
    """End whatever a failed test left running."""
    for line in survivors(root):
        try:
            os.kill(int(line.partition(":")[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue
