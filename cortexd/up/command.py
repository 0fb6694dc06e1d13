"""`cortex up`."""

import argparse
import asyncio

from rich.console import Console

from cortexd.up.defaults import UpPorts
from cortexd.up.folders import UpFolders, folders_of, occupied
from cortexd.up.session import UpOptions, UpSession


def up(options: argparse.Namespace) -> int:
    """Run the embedded fleet; 0 after Ctrl-C or, with `--once`, after the answer."""
    folders = folders_of(options.state_dir)
    wanted = UpOptions(
        ports=UpPorts(options.gateway_port, options.metrics_port, options.neuron_port),
        model=options.model,
        ask=options.ask,
        once=options.once,
    )
    with occupied(folders):
        asyncio.run(_run(folders, wanted))
    return 0


async def _run(folders: UpFolders, wanted: UpOptions) -> None:
    await UpSession(folders, wanted, Console(stderr=True, highlight=False)).run()
