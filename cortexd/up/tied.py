"""`python -m cortexd.up.tied PARENT MODULE ARGUMENT...`: runs MODULE, tied to its parent.

If the parent ends, however it ends, the kernel sends SIGTERM: a daemon then stops in order and
takes its own children and socket files with it.
"""

import runpy
import signal
import sys
from collections.abc import Sequence

from cortex_core.ipc.parent import signal_at_end_of_parent


def main(arguments: Sequence[str]) -> None:
    """Run the module as `python -m MODULE` does; exit if the parent is gone already."""
    parent, module, *rest = arguments
    signal_at_end_of_parent(signal.SIGTERM, int(parent))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
