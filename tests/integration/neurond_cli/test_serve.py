"""The end of `neuron serve`."""

import subprocess
import sys
from pathlib import Path

from tests.fakes.waiting import WAIT_S

BUSY = """
import asyncio, sys, threading
from neurond import daemon
from neurond.cli import main
from neurond.text.pool import TextPool

async def serve(config):
    pool, begun = TextPool(1), asyncio.Event()
    loop = asyncio.get_running_loop()
    def work():
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait()
    waiting = asyncio.create_task(pool.run(work))
    await begun.wait()
    pool.close()
    print("served")

daemon.serve = serve
sys.exit(main(["serve", "--config", sys.argv[1]]))
"""


def test_a_thread_that_goes_on_tokenising_does_not_hold_up_the_end(tmp_path: Path) -> None:
    config = tmp_path / "neuron.toml"
    config.write_text(f'state_dir = "{tmp_path}"\n')
    ended = subprocess.run(
        [sys.executable, "-c", BUSY, str(config)],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "served\n"
    assert "threads at work" in ended.stderr
