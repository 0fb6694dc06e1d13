"""The check process: compiles formats and throws them away, where they can do no harm.

`python -m neurond.text.format_check` reads `ResponseFormat`s as JSON from stdin, one after the
other, each behind its size (`neurond.text.formats.SIZE`), and answers each with a `Trial` in the
same way on stdout. A format that takes too much time, memory or stack ends the process by a signal
instead. A process that a format has left much larger says that it was its last. It ends with stdin.
"""

import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import CortexError, ErrorInfo
from cortex_core.ipc.parent import signal_at_end_of_parent
from neurond.engine.grammar import check_format
from neurond.text.formats import SIZE, Trial

CPU_S: Final = 2.0
"""For one format, by whatever thread; ends the process by SIGPROF."""
ALIVE_S: Final = 30
"""How long the process lives at most with a format, also without the one that asked."""
MEMORY_BYTES: Final = 512 << 20
GROWN_BYTES: Final = 16 << 20
"""What of that may still be held after a format for the process to take another one."""
STACK_BYTES: Final = 2 << 20
"""A quarter of what the thread has that compiles for the engine (`neurond.actor.formats`)."""


def main() -> None:
    """Run the process."""
    signal_at_end_of_parent(signal.SIGKILL, os.getppid())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()


def _serve() -> None:
    status = 1
    try:
        at_first = _data_bytes()
        while response_format := _next_format():
            error = _try(response_format)
            trial = Trial(error, is_last=_data_bytes() - at_first > GROWN_BYTES)
            said = msgspec.json.encode(trial)
            sys.stdout.buffer.write(SIZE.pack(len(said)) + said)
            sys.stdout.buffer.flush()
        status = 0
    except MemoryError:
        os.abort()  # as libraries do that are not Python
    finally:
        os._exit(status)


def _next_format() -> bytes:
    """Return nothing where stdin has ended."""
    size = sys.stdin.buffer.read(SIZE.size)
    return sys.stdin.buffer.read(SIZE.unpack(size)[0]) if len(size) == SIZE.size else b""


def _try(response_format: bytes) -> ErrorInfo | None:
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    signal.alarm(ALIVE_S)
    try:
        check_format(response_format)
    except CortexError as ex:
        return ex.info()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return None


def _data_bytes() -> int:
    """Return what counts against `MEMORY_BYTES`."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


if __name__ == "__main__":
    main()
