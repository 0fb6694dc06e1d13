"""A node as it is installed, with its own backend, in a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from cortex_core.ids import ModelId
from neurond.sources.store import ModelStore
from tests.fakes.ports import free_ports
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import make_tiny_model
from tests.fakes.tokenizers_made import byte_level
from tests.fakes.waiting import wait_until

TINY = ModelId("pypi:tiny")
START_TIMEOUT_S = 120.0


def add_tiny(state_dir: Path) -> None:
    """Put a tiny Llama with random weights on a node's disk."""
    folder = ModelStore(state_dir).folder(TINY)
    folder.mkdir(parents=True)
    byte_level().save(str(folder / "tokenizer.json"))
    prepare_model(make_tiny_model("llama"), folder, model_id=TINY)


@contextlib.contextmanager
def real_node(root: Path, environment: Mapping[str, str] | None = None) -> Iterator[httpx.Client]:
    """Run `neuron serve` with a CPU and one thread, in `root`; its state is in `root`/state.

    Args:
        environment: what its environment has besides.
    """
    (port,) = free_ports(1)
    config = root / "neuron.toml"
    config.write_text(
        f'listen = "127.0.0.1"\nport = {port}\ndevices = ["cpu"]\nthreads = 1\n'
        f'state_dir = "{root / "state"}"\nruntime_dir = "{root / "run"}"\n'
    )
    argv = [sys.executable, "-m", "neurond.cli", "serve", "--config", str(config)]
    log = root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, env={**os.environ, **(environment or {})}, cwd=root, stdout=out, stderr=out
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_TIMEOUT_S) as client:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    devices = client.get("/health").json()["devices"]
                    return [device["state"] for device in devices] == ["ready"]
                return False

            wait_until(ready, timeout_s=START_TIMEOUT_S)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
