"""Ends a process that was started here, with all that it has started."""

import contextlib
import subprocess
from typing import Final

import psutil

STOP_GRACE_S: Final = 10.0
LEFT_GRACE_S: Final = 5.0


def below(pid: int) -> list[psutil.Process]:
    """Return the processes that one has started, and those that they have."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def stop(process: subprocess.Popen[bytes]) -> None:
    """Let it end, and then whatever is left of it; kill who does not."""
    family = below(process.pid)
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    left = [child for child in family if child.is_running()]
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(left, timeout=LEFT_GRACE_S)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=LEFT_GRACE_S)
