"""A process and everything below it, followed until the last of them has ended."""

import contextlib

import psutil

from tests.fakes.waiting import WAIT_S, wait_until


class ProcessFamily:
    """Remembers whom it has seen, so that orphans are found as well."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[int, psutil.Process] = {}

    def alive(self) -> list[psutil.Process]:
        """Those that run now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._pid)
            for process in (parent, *parent.children(recursive=True)):
                self._seen.setdefault(process.pid, process)
        return [process for process in self._seen.values() if alive(process)]

    def running(self, module: str) -> list[psutil.Process]:
        """Those that run `module` now."""
        return [one for one in self.alive() if module in command_of(one)]

    def wait_gone(self, timeout_s: float = WAIT_S) -> None:
        wait_until(lambda: not self.alive(), timeout_s=timeout_s)

    def kill(self) -> list[psutil.Process]:
        """Kill what is left; return it."""
        left = self.alive()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return left


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def parent_of(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
