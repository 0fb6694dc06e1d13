"""The form that an answer is held to, on its way to be tried out and to the device. Pure.

What a schema, a regex or a grammar means is not looked at here: that is for a process that can be
lost (`neurond.text.format_checker`).
"""

import struct
from typing import Final

import msgspec

from cortex_core.canonical import ResponseFormat
from cortex_core.errors import ErrorInfo, InvalidRequest

MAX_FORMAT_BYTES: Final = 256 * 1024
"""As JSON. Schemas of large programs have some 50 KB."""

SIZE: Final = struct.Struct("<I")
"""Stands before a format and before its `Trial`: the number of their bytes."""


class Trial(msgspec.Struct, frozen=True):
    """What the check process says of a format: `error` is None where it can be compiled."""

    error: ErrorInfo | None
    is_last: bool
    """The process takes no other one."""


def encoded_format(wanted: ResponseFormat | None) -> bytes | None:
    """Return a format as JSON.

    Raises:
        InvalidRequest: it lacks what its kind is about, or is too large.
    """
    if wanted is None:
        return None
    if wanted.kind == "json_schema" and wanted.schema is None:
        raise _refuse("a json_schema needs its schema")
    if wanted.kind in ("regex", "grammar") and not wanted.text:
        raise _refuse(f"a {wanted.kind} needs its text")
    try:
        encoded = msgspec.json.encode(wanted)
    except RecursionError:
        raise _refuse("it is nested too deeply") from None
    if len(encoded) > MAX_FORMAT_BYTES:
        raise _refuse(f"it has {len(encoded)} bytes, {MAX_FORMAT_BYTES} are the most")
    return encoded


def _refuse(why: str) -> InvalidRequest:
    param = "response_format"
    return InvalidRequest(f"cannot hold the answer to {param}: {why}", param=param)
