"""Reads a TOML file and the environment into a frozen struct."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cortex_core.config.environment import apply_environment
from cortex_core.config.walker import Mismatch, check, convert
from cortex_core.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


def read_config(
    path: Path,
    kind: type[T],
    *,
    env_prefix: str | None,
    environ: Mapping[str, str] | None = None,
    optional: bool = False,
) -> T:
    """Read `path` into `kind`; unknown keys are refused, constraints of the type are checked.

    Variables that begin with `env_prefix` and an underscore override the file; None lets none.
    `environ` None is the process's environment. With `optional`, a missing file is an empty one.

    Raises:
        ConfigError: the file cannot be read, or something in it or in the environment is wrong.
            The text names the file or variable, the key, the value, what was expected, and the
            nearest valid key; `param` is the key.
    """
    document = _read_toml(path, optional=optional)
    if env_prefix is not None:
        apply_environment(document, kind, env_prefix, os.environ if environ is None else environ)
    try:
        check(document, kind, "")
    except Mismatch as ex:
        raise ConfigError(f"cannot read {path}: {ex}", param=ex.path or None) from ex
    config: T = convert(document, kind)
    return config


def _read_toml(path: Path, *, optional: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as ex:
        if optional:
            return {}
        raise ConfigError(f"cannot read {path}: no such file") from ex
    except OSError as ex:
        raise ConfigError(f"cannot read {path}: {ex.strerror}") from ex
    except UnicodeDecodeError as ex:
        raise ConfigError(f"cannot read {path}: byte {ex.start} is not UTF-8") from ex
    except tomllib.TOMLDecodeError as ex:
        raise ConfigError(f"cannot read {path}: {ex}") from ex
    except RecursionError as ex:
        raise ConfigError(f"cannot read {path}: it is nested too deeply") from ex
