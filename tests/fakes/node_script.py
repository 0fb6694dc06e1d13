"""A daemon in miniature: the main module of a process that a test kills or signals.

`node_script.py ROOT` starts a supervisor over the counting backend, loads a model, prints one JSON
line with the pids, and serves until SIGTERM, which drains and stops it. `ROOT/models/slow` is
loaded behind that line if it exists. Importing this module a second time, as a spawned process
would, leaves a file in ROOT.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil

from tests.fakes.actor_node import Node

if __name__ != "__main__":
    (Path(sys.argv[1]) / "imported-again").touch()


async def serve(root: Path) -> None:
    node = Node(root)
    await node.start()
    model_id = await node.loaded()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    streams = [node.submit(model_id, [10], max_tokens=1900)]
    loading = None
    if "slow" in sys.argv:
        loading = asyncio.create_task(node.load(node.library.add("slow")))
    children = [child.pid for child in psutil.Process().children(recursive=True)]
    line = json.dumps({"actor": node.actor_pid, "children": children})
    os.write(1, f"{line}\n".encode())
    await stopping.wait()
    await node.supervisor.drain(0.1)
    await node.supervisor.stop()
    if loading is not None:
        await asyncio.gather(loading, return_exceptions=True)
    assert len(streams) == 1
    assert not list(node.runtime_dir.iterdir())


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
    os.write(1, b"clean\n")
