"""A whole node in a process of its own: daemon, API and actor, over the counting backend."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import uvloop

from cortex_core.ids import ModelId
from cortex_core.logs import set_up_logging
from cortex_core.model_folder import MANIFEST, WeightsFile
from neurond import daemon
from neurond.config import read_neuron_config
from neurond.sources.store import ModelStore
from tests.fakes.notify_socket import NotifySocket
from tests.fakes.tokenizers_made import byte_level, prepared
from tests.fakes.waiting import WAIT_S, wait_until

MODEL = ModelId("pypi:counting")
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
CONTEXT = 2048
IMPORTED = "imported"


def add_model(state_dir: Path, name: str, *, template: str | None = TEMPLATE) -> ModelId:
    """Put a model on the node's disk; its name says what the counting backend does with it."""
    model_id = ModelId(f"pypi:{name}")
    folder = ModelStore(state_dir).folder(model_id)
    folder.mkdir(parents=True)
    tokenizer = byte_level()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "made.gguf").write_bytes(b"x")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    manifest = msgspec.structs.replace(
        prepared(tokenizer, context=CONTEXT),
        model_id=model_id,
        weights=(WeightsFile("made.gguf", 1, "0" * 64),),
        capabilities=("completions", "chat") if template else ("completions",),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return model_id


class NeuronProcess:
    """Starts on construction and is ready then; `stop` or leaving the block ends it."""

    def __init__(self, root: Path, *, toml: str = "", port: int = 0) -> None:
        self.root = root
        self.state_dir = root / "state"
        self.runtime_dir = root / "run"
        self.config = root / "neuron.toml"
        self.log = root / "log"
        with contextlib.suppress(FileExistsError):
            add_model(self.state_dir, "counting")
        self.config.write_text(
            f'listen = "127.0.0.1"\nport = {port}\ndevices = ["cpu"]\nthreads = 1\n'
            f'state_dir = "{self.state_dir}"\nruntime_dir = "{self.runtime_dir}"\n{toml}'
        )
        self._notify = NotifySocket(root / "notify")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.neuron_process", str(self.config)],
                env=os.environ | {"NOTIFY_SOCKET": str(self._notify.path), "OMP_NUM_THREADS": "1"},
                stderr=log,
            )

    def wait_ready(self) -> "NeuronProcess":
        """Return once systemd would take the service for started."""
        self.wait_notified("READY=1")
        self.port = self._logged_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.base_url, timeout=WAIT_S)
        return self

    def load(self, model: str = MODEL) -> None:
        """Load a model and return when it is ready."""
        response = self.client.post("/models/load", json={"model_id": model})
        assert response.status_code == 200, response.text

    def wait_notified(self, text: str) -> None:
        """Return once the service has told systemd so."""

        def heard() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.told(text)

        wait_until(heard, timeout_s=2 * WAIT_S)

    def told(self, text: str) -> bool:
        """Whether the service has told systemd so."""
        return self._notify.has(text)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._notify.close()
        if hasattr(self, "client"):
            self.client.close()

    def _logged_port(self) -> int:
        lines = [line for line in self.log.read_text().splitlines() if " listening " in line]
        return int(lines[0].partition("address=127.0.0.1:")[2].split()[0])


@contextlib.contextmanager
def neuron_process(root: Path, *, toml: str = "", port: int = 0) -> Iterator[NeuronProcess]:
    """A running node."""
    node = NeuronProcess(root, toml=toml, port=port)
    try:
        yield node.wait_ready()
    finally:
        node.close()


def main(config_path: str) -> None:
    """Serve as `neuron serve` does, but count instead of computing."""
    config = read_neuron_config(Path(config_path))
    set_up_logging(config.log_level)
    settings = msgspec.structs.replace(
        daemon.supervisor_settings(config), backend="tests.fakes.fake_engine:CountingBackend"
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(daemon.serve(config, settings=settings))
    # For a test that asks what a supervisor has imported by the end of its life.
    Path(config_path).with_name(IMPORTED).write_text("\n".join(sys.modules))


if __name__ == "__main__":
    main(sys.argv[1])
