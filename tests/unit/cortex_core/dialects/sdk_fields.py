"""Every field that a request type has, as paths such as `messages[].content[].text`."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, NewType, Required, Union, get_args, get_origin, get_type_hints

import msgspec
import typing_extensions as te

DEPTH = 8
"""Deep enough for both; types that hold themselves end there."""
_WRAPPERS = (Annotated, Required, te.Required, te.NotRequired)


def fields_of(kind: Any, path: str = "", depth: int = DEPTH) -> set[str]:
    """Paths below `path` of the members of typed dicts and msgspec structs in `kind`."""
    if depth == 0:
        return set()
    found: set[str] = set()
    for each in alternatives(kind):
        origin, args = get_origin(each), get_args(each)
        if te.is_typeddict(each) or (isinstance(each, type) and issubclass(each, msgspec.Struct)):
            found |= _members(each, path, depth)
        elif origin is not None and args and origin is not dict and origin is not type:
            found |= fields_of(args[0], f"{path}[]", depth - 1)
    return found


def open_ends(kind: Any, path: str = "", depth: int = DEPTH) -> set[str]:
    """Paths at which `kind` takes any JSON, so that whatever is below them is taken too."""
    if depth == 0:
        return set()
    found: set[str] = set()
    for each in alternatives(kind):
        if each is Any or get_origin(each) is dict:
            found.add(path)
        elif isinstance(each, type) and issubclass(each, msgspec.Struct):
            for name, hint in get_type_hints(each).items():
                found |= open_ends(hint, f"{path}.{name}".lstrip("."), depth - 1)
        elif get_origin(each) is list:
            found |= open_ends(get_args(each)[0], f"{path}[]", depth - 1)
    return found


def alternatives(kind: Any) -> Iterator[Any]:
    """The members of a union, without what only decorates them."""
    if isinstance(kind, NewType):
        yield from alternatives(kind.__supertype__)
    elif get_origin(kind) in _WRAPPERS:
        yield from alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for each in get_args(kind):
            yield from alternatives(each)
    else:
        yield kind


def _members(kind: Any, path: str, depth: int) -> set[str]:
    found: set[str] = set()
    if tag := getattr(getattr(kind, "__struct_config__", None), "tag_field", None):
        found.add(f"{path}.{tag}".lstrip("."))
    for name, hint in get_type_hints(kind, include_extras=True).items():
        place = f"{path}.{name}".lstrip(".")
        found |= {place} | fields_of(hint, place, depth - 1)
    return found
