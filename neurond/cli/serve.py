"""`neuron serve`."""

import argparse
import asyncio
import logging
import os
import sys
import threading
import time
from typing import Final

import uvloop

from cortex_core.logs import kv, set_up_logging
from neurond import daemon
from neurond.config import read_neuron_config

THREADS_GRACE_S: Final = 1.0
"""For threads that are at work when everything else has ended."""

_log = logging.getLogger(__name__)


def serve(options: argparse.Namespace) -> int:
    """Run the node until it is told to stop.

    Ends the process itself where a thread is still at work after that.
    """
    config = read_neuron_config(options.config)
    set_up_logging(config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(daemon.serve(config))
    _leave_threads_behind()
    return 0


def _leave_threads_behind() -> None:
    # Nothing stops a thread that tokenises, for minutes where a prompt is huge, and the
    # interpreter's end would wait for it.
    over_s = time.monotonic() + THREADS_GRACE_S
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.daemon
    ]
    for thread in others:
        thread.join(max(0.0, over_s - time.monotonic()))
    at_work = [thread.name for thread in others if thread.is_alive()]
    if at_work:
        _log.warning("ended with threads at work", extra=kv(threads=",".join(at_work)))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
