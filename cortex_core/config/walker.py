"""Compares a document with a type, key by key, so that an error can name the key.

msgspec would say which value is wrong too, but not which key was meant.
"""

import difflib
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NewType, Union, get_args, get_origin

import msgspec

from cortex_core.config.expectation import expected, shown

_COLLECTIONS = (list, tuple, set, frozenset)
_CLOSE = 0.6


class Mismatch(Exception):
    """A value that its type does not take. `path` is the dotted key, `cause` the rest."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"{path}: {cause}" if path else cause)
        self.path = path
        self.cause = cause


def convert(value: Any, kind: Any) -> Any:
    """Turn plain TOML data into `kind`; a string becomes a path where one is asked for.

    Raises:
        msgspec.ValidationError: it does not fit.
    """
    return msgspec.convert(value, kind, dec_hook=_to_path)


def check(value: Any, kind: Any, path: str) -> None:
    """Compare `value` and everything below it with the type `kind`.

    Raises:
        Mismatch: at the first value that does not fit, in the order of the document.
    """
    if isinstance(value, str) and "\0" in value:
        raise Mismatch(path, "has a NUL character, which no path or name can have")
    bare = bare_type(kind)
    fields = struct_fields(bare)
    if isinstance(value, dict) and fields is not None:
        _check_table(value, fields, path)
    elif isinstance(value, dict) and get_origin(bare) is dict:
        for key, item in value.items():
            check(item, get_args(bare)[1], join(path, key))
    elif isinstance(value, list) and get_origin(bare) in _COLLECTIONS:
        for index, item in enumerate(value):
            check(item, get_args(bare)[0], f"{path}[{index}]")
    _check_whole(value, kind, path, is_table=isinstance(value, dict) and fields is not None)


def bare_type(kind: Any) -> Any:
    """Take annotations, new-type names and `| None` off a type."""
    if isinstance(kind, NewType):
        return bare_type(kind.__supertype__)
    if get_origin(kind) is Annotated:
        return bare_type(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        return bare_type(options[0]) if len(options) == 1 else kind
    return kind


def struct_fields(kind: Any) -> dict[str, msgspec.structs.FieldInfo] | None:
    """Return the fields of a struct type by the key they have in a file, else None."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def nearest_key(key: str, valid: Iterable[str], *, cutoff: float = 0.0) -> str | None:
    """Return the valid key most like `key`, if any is at least as like it as `cutoff` (0 to 1)."""
    near = difflib.get_close_matches(key, sorted(valid), n=1, cutoff=cutoff)
    return near[0] if near else None


def unknown_key(key: str, valid: Iterable[str]) -> str:
    """Say that `key` is unknown and which valid key is nearest."""
    names = sorted(valid)
    if (near := nearest_key(key, names, cutoff=_CLOSE)) is not None:
        return f"unknown key; did you mean '{near}'?"
    if (near := nearest_key(key, names)) is not None:
        return f"unknown key; nearest is '{near}', valid are {', '.join(names)}"
    return "unknown key; this table takes none"


def join(path: str, key: str) -> str:
    """Return the dotted path of `key` in the table at `path`."""
    part = key if key.replace("-", "_").isidentifier() else f'"{key}"'
    return f"{path}.{part}" if path else part


def _check_table(
    table: dict[str, Any], fields: dict[str, msgspec.structs.FieldInfo], path: str
) -> None:
    for key, value in table.items():
        if key not in fields:
            raise Mismatch(join(path, key), unknown_key(key, fields))
        check(value, fields[key].type, join(path, key))
    for name, field in fields.items():
        if field.required and name not in table:
            raise Mismatch(join(path, name), f"missing; expected {expected(field.type)}")


def _check_whole(value: Any, kind: Any, path: str, *, is_table: bool) -> None:
    try:
        convert(value, kind)
    except msgspec.ValidationError as ex:
        # The keys of a table are right by now: what is left is what its own type says of them.
        cause = str(ex) if is_table else f"expected {expected(kind)}, got {shown(value)}"
        raise Mismatch(path, cause) from ex


def _to_path(kind: type[Any], value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}")
