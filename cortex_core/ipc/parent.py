"""A child's side of living and dying with its parent.

A child is tied to its parent twice. The kernel sends SIGKILL when the parent's thread that made it
ends (`PR_SET_PDEATHSIG`), and a thread of the child reads from a pipe whose other end only the
parent has: `child.DeathPipe`.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import threading
from typing import Final

from cortex_core.errors import InternalError

PARENT_GONE_STATUS: Final = 79
"""Exit status of a child that found its parent gone; next to, but none of, sysexits.h."""
STACK_DUMP_SIGNAL: Final = signal.SIGUSR1
"""Makes a child write its stacks to stderr, once it has called `write_stacks_on_signal`."""

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(death_fd: int, parent_pid: int) -> None:
    """Tie this process to the one that made it; the first thing a child does.

    `death_fd` is the read end of the parent's `DeathPipe`, `parent_pid` the parent as it knows
    itself. After this, the end of the parent ends this process: by SIGKILL, or with status
    `PARENT_GONE_STATUS`. It returns only while the parent lives.
    """
    signal_at_end_of_parent(signal.SIGKILL, parent_pid)
    threading.Thread(
        target=_exit_at_end_of, args=(death_fd,), name="parent-watch", daemon=True
    ).start()


def signal_at_end_of_parent(signum: signal.Signals, parent_pid: int) -> None:
    """Have the kernel send this process `signum` when its parent ends; an exec keeps that.

    It returns only while the parent lives: else the process exits with `PARENT_GONE_STATUS`.

    Raises:
        InternalError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        raise InternalError(f"cannot set PR_SET_PDEATHSIG: {os.strerror(ctypes.get_errno())}")
    # The parent may have ended before prctl; then no signal comes any more.
    if os.getppid() != parent_pid:
        os._exit(PARENT_GONE_STATUS)


def write_stacks_on_signal() -> None:
    """Write all stacks to stderr at `STACK_DUMP_SIGNAL` or a crash, even while stuck in C code."""
    faulthandler.enable()
    faulthandler.register(STACK_DUMP_SIGNAL, all_threads=True)


def _exit_at_end_of(fd: int) -> None:
    # Nothing is ever written; reading ends when the last write end is closed.
    with contextlib.suppress(OSError):
        os.read(fd, 1)
    os._exit(PARENT_GONE_STATUS)
