"""The commands of operators against a running fleet."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from cortex_core.ids import ModelId
from cortex_core.neuron_api import Discovery, LoadResponse, UnloadResponse
from cortexd.admin.types import FleetStatus, ModelStatus, ReplicaStatus
from neurond.admin.verbs import Status
from neurond.sources.prepared import PreparedModel
from tests.fakes.fleet_process import CONTEXT, FleetProcess
from tests.fakes.model_cache import GEMMA3, SMOLLM2, cached_model
from tests.fakes.processes import run_command

pytestmark = pytest.mark.model

T = TypeVar("T")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cortex(fleet: FleetProcess) -> Run:
    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = ["--config", str(fleet.cortex_toml)]
        return run_command(fleet.root, "cortexd.cli", command, *config, *arguments)

    return run


@pytest.fixture
def neuron(fleet: FleetProcess) -> Run:
    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = ["--config", str(fleet.neuron_toml)]
        return run_command(fleet.root, "neurond.cli", command, *config, *arguments)

    return run


def printed(done: subprocess.CompletedProcess[str], kind: type[T]) -> T:
    """What `--json` printed; nothing else may stand on stdout."""
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=kind)


def refused(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """What a command that failed says, on stderr alone."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def without_gemma(fleet: FleetProcess) -> Iterator[None]:
    """Gemma is on disk and not in memory, before and after."""
    cached_model(GEMMA3)
    unload_gemma(fleet)
    yield
    unload_gemma(fleet)


def unload_gemma(fleet: FleetProcess) -> None:
    if any(m.id == GEMMA3 and m.status == "ready" for m in fleet.models()):
        fleet.node.post("/models/unload", json={"model_id": GEMMA3})


def test_cortex_status_and_models(fleet: FleetProcess, cortex: Run) -> None:
    status = printed(cortex("status", "--json"), FleetStatus)
    (node,) = status.nodes
    assert (node.name, node.endpoint, node.healthy) == ("here", fleet.node_url, True)
    assert [device.id for device in node.devices] == ["cpu"]
    ready = {one.model_id: one for one in status.replicas if one.status == "ready"}
    assert ready[SMOLLM2].vram_used_mb > 100
    models = {one.id: one for one in printed(cortex("models", "--json"), list[ModelStatus])}
    assert models[SMOLLM2].loaded
    assert models[SMOLLM2].limit.context == CONTEXT
    assert models[SMOLLM2].aliases == ["small"]
    assert SMOLLM2 in cortex("status").stdout
    assert SMOLLM2 in cortex("models").stdout


def test_cortex_loads_and_unloads(fleet: FleetProcess, cortex: Run, without_gemma: None) -> None:
    loaded = printed(cortex("load", "gemma", "--json"), ReplicaStatus)
    assert (loaded.model_id, loaded.node, loaded.status) == (GEMMA3, "here", "ready")
    assert fleet.model(GEMMA3).status == "ready"
    assert printed(cortex("unload", "gemma", "--json"), list[str]) == [f"here/{GEMMA3}"]
    assert fleet.model(GEMMA3).status == "unloaded"
    assert "nowhere" in refused(cortex("load", "gemma", "--node", "nowhere"))
    assert "gemma" in refused(cortex("unload", "gemma"))


def test_cortex_chat(cortex: Run) -> None:
    question = "What is the capital of France?"
    answer = cortex("chat", "--model", "small", "--max-tokens", "12", question)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    told = printed(
        cortex("chat", "--model", "small", "--max-tokens", "12", "--json", question),
        dict[str, Any],
    )
    assert told["model"] == "small"
    assert told["usage"]["completion_tokens"] <= 12
    assert "nothing" in refused(cortex("chat", "--model", "nothing", question))


def test_cortex_check(fleet: FleetProcess, cortex: Run) -> None:
    report = printed(cortex("check", "--json"), dict[str, Any])
    assert report["neurons"] == [f"here {fleet.node_url}"]
    assert SMOLLM2 in report["models"]
    assert report["aliases"]["small"] == SMOLLM2


def test_neuron_status_and_discover(fleet: FleetProcess, neuron: Run) -> None:
    status = printed(neuron("status", "--json"), Status)
    ready = [model.id for model in status.models if model.status == "ready"]
    assert SMOLLM2 in ready
    assert status.health.devices[0].state == "ready"
    found = printed(neuron("discover", "--json"), Discovery)
    assert [device.id for device in found.devices] == ["cpu"]
    assert SMOLLM2 in neuron("status").stdout
    assert "cpu" in neuron("discover").stdout


def test_neuron_loads_and_unloads(fleet: FleetProcess, neuron: Run, without_gemma: None) -> None:
    loaded = printed(neuron("load", GEMMA3, "--context-tokens", "256", "--json"), LoadResponse)
    assert loaded.model.status == "ready"
    assert loaded.model.limit.context == 256
    assert not loaded.already_loaded
    again = printed(neuron("load", GEMMA3, "--json"), LoadResponse)
    assert again.already_loaded
    gone = printed(neuron("unload", GEMMA3, "--json"), UnloadResponse)
    assert gone.model_id == GEMMA3
    assert GEMMA3 in refused(neuron("unload", GEMMA3))
    assert "/nowhere.gguf" in refused(neuron("load", "file:/nowhere.gguf"))


def test_neuron_pull_and_check(fleet: FleetProcess, neuron: Run) -> None:
    pulled = printed(neuron("pull", SMOLLM2, "--json"), PreparedModel)
    assert pulled.model_id == ModelId(SMOLLM2)
    report = json.loads(neuron("check", "--json").stdout)
    assert SMOLLM2 in report["models_on_disk"]
    assert report["notes"] == []
    assert "/nowhere.gguf" in refused(neuron("pull", "file:/nowhere.gguf"))


def test_without_a_daemon_the_status_is_3(fleet: FleetProcess, tmp_path: Path) -> None:
    gateway, node = tmp_path / "cortex.toml", tmp_path / "neuron.toml"
    gateway.write_text(f'[gateway]\nruntime_dir = "{tmp_path / "c"}"\n')
    node.write_text(f'state_dir = "{tmp_path / "n"}"\n')
    for module, config in (("cortexd.cli", gateway), ("neurond.cli", node)):
        for command in ("status", "unload"):
            model = ["small"] if command == "unload" else []
            done = run_command(tmp_path, module, command, "--config", str(config), *model)
            assert "admin.sock" in refused(done, 3)
