"""A whole fleet on this machine: `cortex serve` and `neuron serve`, on free ports, real models."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import psutil

from cortex_core.ids import ModelId
from cortex_core.neuron_api import DeviceHealth, Health, ModelsResponse, NodeModel
from tests.fakes.model_cache import GEMMA3, MINILM, SMOLLM2, cached_model, lend_models
from tests.fakes.neuron_process import add_model
from tests.fakes.ports import free_ports
from tests.fakes.process_family import alive
from tests.fakes.processes import Command, kill_survivors, sockets_in, survivors
from tests.fakes.waiting import WAIT_S, wait_until
from tests.fakes.wire import decoded

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 120.0
CONTEXT = 512
"""Tokens of SmolLM2's context here: small, so that a test can fill it."""
GEMMA_CONTEXT = 512
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

MODELS_TOML = f"""
[[models]]
id = "{SMOLLM2}"
context_tokens = {CONTEXT}
limit.context = {CONTEXT}

[[models]]
id = "{GEMMA3}"
context_tokens = {GEMMA_CONTEXT}
kv_cache_mb = 64
max_in_flight = 2
max_queue_depth = 1
chat_template = "{GEMMA_TEMPLATE}"

[[models]]
id = "{MINILM}"

[aliases]
"small" = "{SMOLLM2}"
"minilm" = "{MINILM}"
"gemma" = "{GEMMA3}"
"""


class FleetProcess:
    """Two daemons with a folder of their own. Start it, wait until it is ready, close it."""

    def __init__(
        self,
        root: Path,
        *,
        models_toml: str = MODELS_TOML,
        gateway_toml: str = "drain_timeout_s = 120",
        fleet_toml: str = "node_grace_s = 60",
        neuron_toml: str = "",
        workers: int = 2,
        counting: bool = False,
    ) -> None:
        """With `counting`, the node has one model that counts instead of computing."""
        self.root = root
        self._workers = workers
        self.state_dir = root / "state"
        self.run_dir = root / "run"
        api, metrics, node = free_ports(3)
        self.base_url = f"http://127.0.0.1:{api}"
        self.metrics_url = f"http://127.0.0.1:{metrics}"
        self.node_url = f"http://127.0.0.1:{node}"
        self.cortex_toml = root / "cortex.toml"
        self.neuron_toml = root / "neuron.toml"
        if counting:
            add_model(self.state_dir, "counting")
        else:
            lend_models(self.state_dir)
        (root / "models.toml").write_text(models_toml)
        self.cortex_toml.write_text(
            f'models_config = "models.toml"\n[gateway]\nlisten = "127.0.0.1:{api}"\n'
            f'metrics_listen = "127.0.0.1:{metrics}"\nworkers = {workers}\n'
            f'default_scheme = "pypi"\nruntime_dir = "{self.run_dir / "c"}"\n{gateway_toml}\n'
            f"[fleet]\npoll_interval_s = 1.0\n{fleet_toml}\n"
            f'[[neurons]]\nname = "here"\nendpoint = "{self.node_url}"\n'
        )
        self.neuron_toml.write_text(
            f'listen = "127.0.0.1"\nport = {node}\nstate_dir = "{self.state_dir}"\n'
            f'runtime_dir = "{self.run_dir / "n"}"\n{neuron_toml}\n'
        )
        serve = ["serve", "--config", str(self.neuron_toml)]
        self.neuron = (
            Command(root, "neuron", "tests.fakes.neuron_process", [str(self.neuron_toml)])
            if counting
            else Command(root, "neuron", "neurond.cli", serve)
        )
        self.gateway = Command(
            root, "cortex", "cortexd.cli", ["serve", "--config", str(self.cortex_toml)]
        )
        self.api = httpx.Client(base_url=self.base_url, timeout=ANSWER_TIMEOUT_S)
        self.node = httpx.Client(base_url=self.node_url, timeout=ANSWER_TIMEOUT_S)
        self.openai = openai.OpenAI(
            base_url=f"{self.base_url}/v1",
            api_key="none",
            max_retries=0,
            timeout=ANSWER_TIMEOUT_S,
        )
        self.node_openai = self.openai.with_options(base_url=f"{self.node_url}/v1")
        self.anthropic = anthropic.Anthropic(
            base_url=self.base_url, api_key="none", max_retries=0, timeout=ANSWER_TIMEOUT_S
        )

    def start(self) -> None:
        self.neuron.start()
        self.gateway.start()

    def wait_ready(self) -> None:
        """Return when the gateway sees the node."""

        def ready() -> bool:
            self.neuron.check_running()
            self.gateway.check_running()
            with contextlib.suppress(httpx.TransportError):
                return bool(self.api.get("/health").json()["healthy_nodes"])
            return False

        wait_until(ready, timeout_s=START_TIMEOUT_S)

    def load(self, model: str = SMOLLM2) -> None:
        """Return when the gateway serves the model."""
        answer = self.api.post(
            "/v1/completions", json={"model": model, "prompt": "Hello", "max_tokens": 1}
        )
        assert answer.status_code == 200, answer.text

    def unload(self, model_id: ModelId) -> None:
        """Take a model out of the node's memory if it is ready there."""
        if any(model.status == "ready" for model in self.models() if model.id == model_id):
            answer = self.node.post("/models/unload", json={"model_id": model_id})
            assert answer.status_code == 200, answer.text

    def models(self) -> list[NodeModel]:
        """Return what the node says of its models."""
        return decoded(self.node.get("/models"), ModelsResponse).models

    def model(self, model_id: ModelId = SMOLLM2) -> NodeModel:
        """Return what the node says of a model."""
        return next(model for model in self.models() if model.id == model_id)

    def wait_idle(self, model_id: ModelId = SMOLLM2, *, timeout_s: float = WAIT_S) -> None:
        """Return when nothing runs or waits in the engine."""

        def idle() -> bool:
            model = self.model(model_id)
            return model.running == 0 and model.waiting == 0

        wait_until(idle, timeout_s=timeout_s)

    def device(self) -> DeviceHealth:
        return decoded(self.node.get("/health"), Health).devices[0]

    def actor(self) -> psutil.Process:
        """Return the process of the node's device actor."""
        (found,) = self._below(self.neuron, "multiprocess.spawn", 1)
        return found

    def stopped_actor(
        self, model_id: ModelId = SMOLLM2, *, running: int = 1
    ) -> psutil.Process | None:
        """Stop the actor if so many requests are not complete; else let it go on, return None."""
        actor = self.actor()
        actor.suspend()
        # What it had told when the node gave the first answer has been read at the second.
        if [self.model(model_id).running for _ in range(2)][-1] == running:
            return actor
        actor.resume()
        return None

    def fleet_actor(self) -> psutil.Process:
        (found,) = self._below(self.gateway, "cortexd.fleet_actor", 1)
        return found

    def http_workers(self) -> list[psutil.Process]:
        """Return gunicorn's workers, without their master."""
        master, *workers = self._below(self.gateway, "cortexd.http_server", 1 + self._workers)
        assert master.ppid() == self.gateway.process.pid
        return workers

    def _below(self, daemon: Command, text: str, count: int) -> list[psutil.Process]:
        """Return the processes of a daemon with `text` in their command lines, once all run."""
        found: list[psutil.Process] = []

        def all_run() -> bool:
            found[:] = filter(alive, daemon.children(text))
            return len(found) == count

        wait_until(all_run)
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric of the gateway over all label values but these."""
        return total(httpx.get(f"{self.metrics_url}/metrics").text, name, labels)

    def node_cancelled(self) -> float:
        """Return how many requests the node has ended because their client was gone."""
        return self.node_metric("neuron_requests_total", outcome="cancelled")

    def node_metric(self, name: str, **labels: str) -> float:
        """Return the same of the node."""
        return total(self.node.get("/metrics").text, name, labels)

    def stop(self) -> None:
        """End both in order and check that nothing is left."""
        for daemon in (self.gateway, self.neuron):
            if daemon.running:
                daemon.send(signal.SIGTERM)
        for daemon in (self.gateway, self.neuron):
            assert daemon.wait() == 0, daemon.text()
        wait_until(lambda: not survivors(self.root))
        assert sockets_in(self.run_dir) == []

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        self.gateway.kill()
        self.neuron.kill()
        kill_survivors(self.root)
        for client in (self.api, self.node, self.openai, self.node_openai, self.anthropic):
            client.close()


@contextlib.contextmanager
def fleet_process(root: Path, *models: ModelId, **settings: str) -> Iterator[FleetProcess]:
    """A running fleet with these models ready, SmolLM2 where none is named."""
    wanted = models or (SMOLLM2,)
    for model in wanted:
        if model.startswith("pypi:"):
            cached_model(model)
    fleet = FleetProcess(root, **settings)
    try:
        fleet.start()
        fleet.wait_ready()
        for model in wanted:
            fleet.load(model)
        yield fleet
    finally:
        fleet.close()


def total(text: str, name: str, labels: dict[str, str]) -> float:
    """Return the sum of a metric's samples that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    samples = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(
        float(line.rpartition(" ")[2]) for line in samples if all(label in line for label in wanted)
    )
