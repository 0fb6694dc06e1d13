"""A program in a terminal of its own: what a person would type, and what they would see."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.fakes.waiting import wait_until

ROWS, COLUMNS = 60, 160
SEEN_TIMEOUT_S = 60
END_TIMEOUT_S = 30
CONTROLS = re.compile(
    r"\x1b\[[0-9;?<>=]*[ -/]*[@-~]"  # colours, places of the cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles
    r"|\x1b[()=>78]."
)


class Terminal:
    """What it has shown so far is `text()`: in the order of writing, without colours."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={"TERM": "xterm-256color", **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def text(self) -> str:
        return CONTROLS.sub("", self._shown.decode(errors="replace"))

    def type(self, text: str, *, until: str) -> re.Match[str]:
        """Type it; return the first match of `until` in what is shown from then on."""
        before = len(self.text())
        os.write(self._ours, text.encode())
        return self.see(until, after=before)

    def see(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Return the first match in what is shown, once there is one."""
        found: list[re.Match[str]] = []

        def there() -> bool:
            assert self.process.poll() is None, self.text()
            found.extend(re.finditer(pattern, self.text()[after:]))
            return bool(found)

        try:
            wait_until(there, timeout_s=SEEN_TIMEOUT_S)
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} was not shown:\n{self.text()}") from error
        return found[0]

    def close(self) -> None:
        """End the program and what reads from it."""
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reading.join()
        os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nobody has the other end any more
            while data := os.read(self._ours, 65536):
                self._shown += data


@contextlib.contextmanager
def terminal(command: list[str], cwd: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """A program in a terminal; it leaves nothing behind."""
    made = Terminal(command, cwd, environment)
    try:
        yield made
    finally:
        made.close()
