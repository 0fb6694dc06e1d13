"""The check process: compiles one format and throws it away, where it can do no harm.

`python -m neurond.text.format_check` reads a `ResponseFormat` as JSON from stdin. It writes an
`ErrorInfo` as JSON to stdout where the format is wrong, nothing where it is right, and exits with
status 0. A format that takes too much time, memory or stack ends the process by a signal. Where
stdin ends without a format, the process was not needed.
"""

import os
import resource
import signal
import sys
import threading
from typing import Final

import msgspec

from cortex_core.errors import CortexError
from cortex_core.ipc.parent import signal_at_end_of_parent
from neurond.engine.grammar import check_format

CPU_S: Final = 2
ALIVE_S: Final = 30
"""How long the process lives at most with a format, also without the one that asked."""
MEMORY_BYTES: Final = 512 << 20
STACK_BYTES: Final = 2 << 20
"""A quarter of what the thread has that compiles for the engine (`neurond.actor.formats`)."""


def main() -> None:
    """Run the process."""
    signal_at_end_of_parent(signal.SIGKILL, os.getppid())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    response_format = sys.stdin.buffer.read()
    signal.alarm(ALIVE_S)
    if not response_format:
        return
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_check, args=(response_format,))
    thread.start()
    thread.join()


def _check(response_format: bytes) -> None:
    try:
        check_format(response_format)
    except CortexError as ex:
        sys.stdout.write(msgspec.json.encode(ex.info()).decode())
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
