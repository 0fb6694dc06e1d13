"""`python -m cortexd.up.tied PARENT PROGRAM ARGUMENT...`: becomes PROGRAM, tied to its parent.

If the parent ends, however it ends, the kernel sends SIGTERM: a daemon then stops in order and
takes its own children and socket files with it. The tie survives the exec.
"""

import os
import signal
import sys
from collections.abc import Sequence

from cortex_core.ipc.parent import signal_at_end_of_parent


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the program; exit if the parent is gone already."""
    parent, *command = arguments
    signal_at_end_of_parent(signal.SIGTERM, int(parent))
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
