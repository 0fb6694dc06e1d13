"""`python -m bench.overhead.node CONFIG BACKEND`: `neuron serve`, its actors with that backend."""

import asyncio
import sys
from pathlib import Path

import msgspec
import uvloop

from cortex_core.logs import set_up_logging
from neurond import daemon
from neurond.config import read_neuron_config


def main(config_file: str, backend: str) -> None:
    config = read_neuron_config(Path(config_file))
    set_up_logging("warning")
    settings = msgspec.structs.replace(daemon.supervisor_settings(config), backend=backend)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(daemon.serve(config, settings=settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
