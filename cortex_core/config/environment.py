"""Overrides from the environment: `PREFIX_TABLE__KEY=value` replaces `key` in `[table]`.

The value is read as TOML where that gives what the key takes, else as plain text, so
`CORTEX_GATEWAY__LISTEN=0.0.0.0:80` and `CORTEX_NEURONS=[{name="a", endpoint="http://a:13131"}]`
both work. A single item of an array cannot be named.

A variable with a double underscore must name a key. One without may belong to another program
(AWS sets `NEURON_RT_*`); it is refused only where it is nearly the name of a key.
"""

import tomllib
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from cortex_core.config.walker import (
    Mismatch,
    bare_type,
    check,
    join,
    nearest_key,
    struct_fields,
    unknown_key,
)
from cortex_core.errors import ConfigError

_SEPARATOR = "__"
_TYPO = 0.75


def apply_environment(
    document: dict[str, Any], kind: type[Any], prefix: str, environ: Mapping[str, str]
) -> None:
    """Put every override for a document of type `kind` into `document`.

    Raises:
        ConfigError: a variable names no key, or its value does not fit; the text names it.
    """
    for variable in sorted(environ):
        if not variable.startswith(prefix + "_"):
            continue
        keys = variable[len(prefix) + 1 :].lower().split(_SEPARATOR)
        if len(keys) == 1 and _is_foreign(keys[0], kind):
            continue
        try:
            _override(document, kind, keys, environ[variable])
        except Mismatch as ex:
            raise ConfigError(
                f"cannot read environment variable {variable}: {ex}", param=ex.path
            ) from ex


def _is_foreign(key: str, kind: type[Any]) -> bool:
    names = struct_fields(kind) or {}
    return key not in names and nearest_key(key, names, cutoff=_TYPO) is None


def _override(document: dict[str, Any], kind: Any, keys: list[str], text: str) -> None:
    table, path = document, ""
    for key in keys[:-1]:
        kind, path = _step(kind, key, path)
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise Mismatch(path, "expected a table")
    kind, path = _step(kind, keys[-1], path)
    table[keys[-1]] = _read_value(text, kind, path)


def _step(kind: Any, key: str, path: str) -> tuple[Any, str]:
    bare = bare_type(kind)
    fields = struct_fields(bare)
    if fields is not None:
        if key not in fields:
            raise Mismatch(join(path, key), unknown_key(key, fields))
        return fields[key].type, join(path, key)
    if get_origin(bare) is dict and key:
        return get_args(bare)[1], join(path, key)
    raise Mismatch(path, f"has no key '{key}'; set it as a whole, written as TOML")


def _read_value(text: str, kind: Any, path: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = {}
    value = parsed["value"] if parsed.keys() == {"value"} else text
    # A string key takes `42` or `true` as it is written.
    if not _fits(value, kind, path) and _fits(text, kind, path):
        return text
    check(value, kind, path)
    return value


def _fits(value: Any, kind: Any, path: str) -> bool:
    try:
        check(value, kind, path)
    except Mismatch:
        return False
    return True
