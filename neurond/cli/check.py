"""`neuron check`: is the configuration right, and what does this host offer?"""

import argparse
import shutil
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import ConfigError, CortexError
from cortex_core.ipc.socket_paths import check_socket_path, may_exist
from cortex_core.neuron_api import Discovery
from cortex_core.sizes import MIB
from cortex_core.terminal import print_json
from neurond.cli.host import host_view
from neurond.cli.show import print_discovery
from neurond.config import ADMIN_SOCKET, DEFAULT_PATH, NeuronConfig, read_neuron_config
from neurond.devices import Devices
from neurond.sources.store import ModelStore
from neurond.state_dir import check_state_dir, existing_part
from neurond.text.template import check_template

LOW_DISK_MB: Final = 4096


class Report(msgspec.Struct, frozen=True):
    """What was found; `notes` are worth a look but stop nothing."""

    config: str
    listen: str
    state_dir: str
    state_free_mb: int
    models_on_disk: list[str]
    discovery: Discovery
    notes: list[str]


def check(options: argparse.Namespace) -> int:
    """Check and report; a wrong configuration is an error with exit status 2."""
    config = read_neuron_config(options.config)
    _check_templates(config)
    check_socket_path(config.runtime_folder() / ADMIN_SOCKET)
    report = _report(options.config or DEFAULT_PATH, config)
    if options.json:
        print_json(report)
        return 0
    print(f"configuration {report.config}: right")
    print(f"listens on {report.listen}, state in {report.state_dir}")
    print(f"models on disk: {', '.join(report.models_on_disk) or 'none'}")
    print_discovery(report.discovery)
    for note in report.notes:
        print(f"note: {note}")
    return 0


def _report(path: Path, config: NeuronConfig) -> Report:
    state_dir = Path(config.state_dir)
    obstacle = check_state_dir(state_dir)
    existing = existing_part(state_dir)
    free_mb = shutil.disk_usage(existing).free // MIB
    notes = []
    if not may_exist(path):
        notes.append(f"there is no {path}; the defaults hold")
    if not may_exist(state_dir):
        notes.append(f"state_dir {state_dir} does not exist yet; `neuron serve` makes it")
    if obstacle is not None:
        notes.append(obstacle)
    if free_mb < LOW_DISK_MB:
        notes.append(f"only {free_mb} MiB are free for models in {existing}")
    return Report(
        config=str(path),
        listen=f"{config.listen}:{config.port}",
        state_dir=str(state_dir),
        state_free_mb=free_mb,
        models_on_disk=[model.model_id for model in ModelStore(state_dir).models()],
        discovery=host_view(Devices.discover(config.device_names())),
        notes=notes,
    )


def _check_templates(config: NeuronConfig) -> None:
    for place, model in enumerate(config.models):
        if model.chat_template is None:
            continue
        try:
            check_template(model.chat_template, model=model.id)
        except CortexError as ex:
            key = f"models[{place}].chat_template"
            raise ConfigError(f"{key}: {ex.message}", param=key) from ex
