"""From a client's bytes to typed structs, with errors that name the place in the client's words."""

import re
from typing import Final, TypeVar

import msgspec

from cortex_core.errors import InvalidRequest

T = TypeVar("T")

_TOO_DEEP: Final = "the JSON is nested too deeply"
_PLACE = re.compile(r" - at `(?P<place>[^`]*)`(?: in `(?P<parent>[^`]*)`)?$")
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")


def refuse(param: str | None, why: str) -> InvalidRequest:
    """Return the error for the field at JSON path `param`, for the caller to raise."""
    place = f"{param}: " if param else ""
    return InvalidRequest(f"cannot read request: {place}{why}", param=param)


def read_json(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a request body.

    Raises:
        InvalidRequest: the body is not JSON, not UTF-8, nested too deeply, or of another type.
    """
    if not body.strip():
        raise refuse(None, "the body is empty, expected a JSON object")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from None
    except msgspec.DecodeError as error:
        raise refuse(None, str(error)) from None
    except UnicodeDecodeError as error:
        raise refuse(None, f"the body is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise refuse(None, _TOO_DEEP) from None


def write_json(value: object) -> bytes:
    """Encode what a request said.

    Raises:
        InvalidRequest: it could just be read, but is nested too deeply for where it is written:
            in Python 3.11 that is deeper by the frames of its callers.
    """
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        raise refuse(None, _TOO_DEEP) from None


def read_value(value: object, kind: type[T], *, place: str) -> T:
    """Return what JSON at path `place` says, as one of the types that stand there.

    Raises:
        InvalidRequest: it is of another type, naming the field under `place`.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), place) from None


def _wrong_type(text: str, root: str = "") -> InvalidRequest:
    found = _PLACE.search(text)
    what = text if found is None else text[: found.start()]
    path = "" if found is None else (found["parent"] or found["place"]).removeprefix("$")
    path = root + path
    if missing := _MISSING.match(what):
        path, what = f"{path}.{missing['field']}", "this field is required"
    elif found is not None and found["parent"]:
        what = f"in a key: {_lower_first(what)}"
    else:
        what = _lower_first(what)
    return refuse(path.removeprefix(".") or None, what)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
