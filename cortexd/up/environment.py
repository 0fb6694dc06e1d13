"""What the daemons of `cortex up` take from its environment. Pure."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from cortex_core.ipc.sdnotify import NOTIFY_VARIABLES


def daemon_environment(environ: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without what would go before the keys that `cortex up` sets.

    `files` has the text of a configuration file by the prefix of its overrides. What a file does
    not set, such as `NEURON_THREADS`, is passed on, whatever systemd told us is not.
    """
    set_here = {
        (prefix, name)
        for prefix, toml in files.items()
        for name in _override_names(tomllib.loads(toml))
    }
    return {
        variable: text
        for variable, text in environ.items()
        if variable not in NOTIFY_VARIABLES and _prefix_and_name(variable) not in set_here
    }


def _override_names(table: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield how overrides name the keys of a table; one of a table as a whole sets all of them."""
    for key, value in table.items():
        yield before + key
        if isinstance(value, dict):
            yield from _override_names(value, f"{before}{key}__")


def _prefix_and_name(variable: str) -> tuple[str, str]:
    prefix, _, name = variable.partition("_")
    return prefix, name.lower()
