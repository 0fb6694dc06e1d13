"""The configuration files that `cortex up` writes, anew at each start. Pure text."""

import json
from typing import Final

from cortex_core.errors import ConfigError
from cortexd.config import TiersConfig
from cortexd.up.defaults import DEFAULT_MODEL, SECOND_MODEL, UpPorts
from cortexd.up.folders import UpFolders

NODE_NAME: Final = "local"
HOST: Final = "127.0.0.1"
DRAIN_TIMEOUT_S: Final = 5
DEFAULT_SCHEME: Final = "pypi"

_HEADER: Final = "# Written by `cortex up` at each start; changes here are lost.\n"

PLAIN_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Turns for a base model, which has no template of its own."""

ALIASES: Final = {"smollm2": DEFAULT_MODEL, "gemma": SECOND_MODEL}


def cortex_toml(folders: UpFolders, ports: UpPorts) -> str:
    """Return the gateway's file: one worker, and the one node that `up` starts."""
    return f"""{_HEADER}models_config = "models.toml"

[gateway]
listen = "{HOST}:{ports.gateway}"
metrics_listen = "{HOST}:{ports.metrics}"
runtime_dir = {_quoted(str(folders.gateway_run))}
state_dir = {_quoted(str(folders.gateway_state))}
workers = 1
default_scheme = "{DEFAULT_SCHEME}"
drain_timeout_s = {DRAIN_TIMEOUT_S}

[fleet]
poll_interval_s = 1

[[neurons]]
name = "{NODE_NAME}"
endpoint = "http://{HOST}:{ports.neuron}"
"""


def models_toml(model: str) -> str:
    """Return `models.toml`: the two small models, and `model` if it is another one.

    `model` answers for each tier.
    """
    others = [] if model in (DEFAULT_MODEL, SECOND_MODEL) else [model]
    entries = [f"[[models]]\nid = {_quoted(one)}\n" for one in (DEFAULT_MODEL, *others)]
    entries.append(
        f"[[models]]\nid = {_quoted(SECOND_MODEL)}\nchat_template = {_quoted(PLAIN_TEMPLATE)}\n"
    )
    aliases = "".join(f"{_quoted(name)} = {_quoted(to)}\n" for name, to in ALIASES.items())
    # Claude Code and the SDKs' examples name Anthropic's own models; one of ours answers for all.
    lines = TiersConfig.__struct_fields__
    tiers = "".join(f"{line} = {_quoted(model)}\n" for line in lines)
    return "\n".join([_HEADER, *entries, f"[aliases]\n{aliases}", f"[tiers]\n{tiers}"])


def neuron_toml(folders: UpFolders, ports: UpPorts, model: str) -> str:
    """Return `neuron.toml`; the node begins to load `model` as it starts."""
    return f"""{_HEADER}port = {ports.neuron}
listen = "{HOST}"
state_dir = {_quoted(str(folders.neuron_state))}
runtime_dir = {_quoted(str(folders.neuron_run))}
default_scheme = "{DEFAULT_SCHEME}"
drain_timeout_s = {DRAIN_TIMEOUT_S}

[[default_models]]
model_id = {_quoted(model)}
"""


def write_configs(folders: UpFolders, ports: UpPorts, model: str) -> None:
    """Write all three files.

    Raises:
        ConfigError: one cannot be written.
    """
    texts = {
        folders.cortex_toml: cortex_toml(folders, ports),
        folders.models_toml: models_toml(model),
        folders.neuron_toml: neuron_toml(folders, ports, model),
    }
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot write {path}: {error.strerror}; choose another folder with --state-dir"
            ) from error


def _quoted(text: str) -> str:
    """Return a TOML basic string; its escapes are those of JSON, and one more is due."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
