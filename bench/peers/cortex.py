"""This project: `cortex up`, asked at its node and through its gateway."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Entry, Launch, Shape
from bench.peers.weights import Weights
from cortex_core.ids import ModelId
from tests.fakes.ports import free_ports

CHECKOUT: Final = Path(__file__).parents[2]
MEASURED: Final = ("cortex_core", "cortexd", "neurond", "setup.py")
FORMATS: Final = {
    "int4": ("int4", "bfloat16", "off"),
    "int4-drafts": ("int4", "bfloat16", "ngram"),
    "int4-kv8": ("int4", "int8", "off"),
    "int8": ("int8", "bfloat16", "off"),
    "bf16": ("bfloat16", "bfloat16", "off"),
    "bf16-kv8": ("bfloat16", "int8", "off"),
}
"""What the weights are in, keys and values, and whether drafts are made: without, a chunk comes for
each token, as from others."""
QUESTION: Final = "Once upon a time there was"
"""What `cortex up` asks when it has started: a base model can go on with it."""
TURNS: Final = "{{ bos_token }}{% for turn in messages %}{{ turn.content }}{% endfor %}"
"""A chat template for models that have none."""
KV_CACHE_MB: Final = 4096
UP: Final = "Ctrl-C stops it."
LOAD_TIMEOUT_S: Final = 600.0


class Cortex:
    """A node on all cores; its first question is answered before anything is measured."""

    name = "cortex"
    entries = ("node", "gateway")

    def __init__(self, cache: Cache, threads: int) -> None:
        self._cache = cache
        self._threads = threads
        self.version = _revision()

    @staticmethod
    def formats_of(model: ModelId) -> Sequence[str]:
        """See `Peer.formats_of`."""
        del model
        return tuple(FORMATS)

    def prepare(self) -> None:
        """See `Peer.prepare`: this checkout is installed already."""

    def launch(self, weights: Weights, weight_format: str, shape: Shape, *, fresh: bool) -> Launch:
        """See `Peer.launch`."""
        if fresh:
            shutil.rmtree(weights.source / "packed", ignore_errors=True)
        state = self._cache.folder("state", "cortex")
        _lend(state / "neuron", self._cache.folder("models"))
        gateway, metrics, node = free_ports(3)
        ports = ("--gateway-port", gateway, "--metrics-port", metrics, "--neuron-port", node)
        model = str(weights.model_id)
        env = self._settings(weights, weight_format, shape)
        entry = Entry(f"http://127.0.0.1:{node}", model, name="node", process="neurond.cli serve")
        return Launch(
            argv=[
                *(sys.executable, "-m", "cortexd.cli", "up", "--state-dir", str(state)),
                *("--model", model, "--ask", QUESTION, *map(str, ports)),
            ],
            env={**env, "COLUMNS": "200"},
            entries=[entry, Entry(f"http://127.0.0.1:{gateway}", model, name="gateway")],
            ready=UP,
            alone=_node_alone(state / "neuron", node, env, entry),
        )

    def _settings(self, weights: Weights, weight_format: str, shape: Shape) -> dict[str, str]:
        """Return what tells a node how to run the model."""
        dtype, kv_dtype, speculation = FORMATS[weight_format]
        talks = "chat" in weights.manifest.capabilities
        profile = ", ".join(
            (
                f'id = "{weights.model_id}"',
                f'dtype = "{dtype}"',
                f'kv_dtype = "{kv_dtype}"',
                f"context_tokens = {shape.context_tokens}",
                f"max_sequences = {shape.streams}",
                f"kv_cache_mb = {KV_CACHE_MB}",
                f'speculation = "{speculation}"',
                *(() if talks else (f"chat_template = '{TURNS}'",)),
            )
        )
        return {"NEURON_MODELS": f"[{{{profile}}}]", "NEURON_THREADS": str(self._threads)}


def _node_alone(state: Path, port: int, env: dict[str, str], entry: Entry) -> Launch:
    """Return how a node is started that begins to load the model at once."""
    return Launch(
        argv=[sys.executable, "-m", "neurond.cli", "serve"],
        env={
            **env,
            "NEURON_PORT": str(port),
            "NEURON_LISTEN": "127.0.0.1",
            "NEURON_STATE_DIR": str(state),
            "NEURON_DEFAULT_MODELS": f'[{{model_id = "{entry.model}"}}]',
        },
        entries=[entry],
        reload=lambda: _reload(entry.url, entry.model),
    )


def _lend(node_state: Path, models: Path) -> None:
    """Let the node use the models of the cache."""
    node_state.mkdir(parents=True, exist_ok=True)
    link = node_state / "models"
    if not link.exists():
        link.symlink_to(models.absolute())


def _reload(url: str, model: str) -> float:
    _post(f"{url}/models/unload", {"model_id": model})
    began = time.perf_counter()
    _post(f"{url}/models/load", {"model_id": model})
    return time.perf_counter() - began


def _post(url: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=LOAD_TIMEOUT_S) as answer:
            answer.read()
    except OSError as ex:
        raise Unavailable(f"{url} failed: {ex}") from ex


def _revision() -> str:
    """Return the last commit of what is measured; with a plus where that has been changed since."""
    git = ["git", "-C", str(CHECKOUT)]
    try:
        commit = subprocess.run(
            [*git, "log", "-1", "--format=%h", "--", *MEASURED],
            capture_output=True,
            text=True,
            check=True,
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *MEASURED], check=False)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.returncode else "")
