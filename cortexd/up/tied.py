"""`python -m cortexd.up.tied PARENT PROGRAM ARGUMENT...`: becomes PROGRAM, tied to its parent.

If the parent ends, however it ends, the kernel sends SIGTERM: a daemon then stops in order and
takes its own children and socket files with it. The tie survives the exec.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PARENT_GONE_STATUS = 79


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the program; return only if the parent is gone already."""
    parent, *command = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    # It may have ended before prctl; then no signal comes any more.
    if os.getppid() != int(parent):
        sys.exit(PARENT_GONE_STATUS)
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
