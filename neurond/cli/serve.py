"""`neuron serve`."""

import argparse
import asyncio

import uvloop

from cortex_core.logs import set_up_logging
from neurond import daemon
from neurond.config import read_neuron_config


def serve(options: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""
    config = read_neuron_config(options.config)
    set_up_logging(config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(daemon.serve(config))
    return 0
