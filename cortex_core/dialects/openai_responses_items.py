"""Items of `/v1/responses` as JSON: those a request means, and the form in which they are kept.

An item is an object with a `type`. Those that say something to a model here are messages, calls,
their outputs and reasoning; the others are history of what only OpenAI's own servers do.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from cortex_core.canonical import JsonObject
from cortex_core.dialects.reading import read_value, refuse
from cortex_core.sampling_limits import MAX_SHOWN_CHARS

_OWN_ITEM: Final = re.compile(r"^[a-z]+_(?P<request>[0-9a-f]{24})_i?\d+$")
_PREFIXES: Final = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
"""What ids of items begin with; other types are not kept."""


class Head(msgspec.Struct, frozen=True):
    """What every item may have."""

    type: str | None = None
    role: str | None = None
    id: str | None = None
    status: str | None = None

    @property
    def kind(self) -> str:
        """The type, where easy messages and references may leave it out."""
        return self.type or ("message" if self.role is not None else "item_reference")


def head_of(item: JsonObject, place: str) -> Head:
    """Return what tells the kind of the item at `place`.

    Raises:
        InvalidRequest: it cannot be told.
    """
    return read_value(item, Head, place=place)


def num_parts(items: Sequence[JsonObject]) -> int:
    """Return the number of parts in `items`, an item without a list of them counting as one."""
    return sum(map(_num_parts_in, items))


def _num_parts_in(item: JsonObject) -> int:
    lists = (item.get(key) for key in ("content", "output"))
    return max(1, *(len(each) if isinstance(each, list) else 1 for each in lists))


def references_in(items: str | Sequence[JsonObject] | None) -> tuple[str, ...]:
    """Return the ids of stored items that a client names in place of the items.

    Raises:
        InvalidRequest: an item has no readable type, a reference no id, or one that was named
            before: a short request would have a stored item of any length again and again.
    """
    found: dict[str, None] = {}
    for number, item in enumerate(() if items is None or isinstance(items, str) else items):
        item_id = _reference(item, f"input[{number}]")
        if item_id is None:
            continue
        if item_id in found:
            why = f"item {item_id[:MAX_SHOWN_CHARS]!r} is named twice"
            raise refuse(f"input[{number}].id", f"{why}; a reference may stand once")
        found[item_id] = None
    return tuple(found)


def _reference(item: JsonObject, place: str) -> str | None:
    head = head_of(item, place)
    if head.kind != "item_reference":
        return None
    if head.id is None:
        raise refuse(f"{place}.id", "this field is required in a reference")
    return head.id


def items_from(
    wire: str | Sequence[JsonObject] | None, stored: Mapping[str, JsonObject]
) -> list[JsonObject]:
    """Return the items of a request; `stored` has those that references may name, by id.

    Raises:
        InvalidRequest: a reference names an item that is not in `stored`.
    """
    if wire is None:
        return []
    if isinstance(wire, str):
        return [{"type": "message", "role": "user", "content": wire}]
    items = []
    for number, item in enumerate(wire):
        place = f"input[{number}]"
        item_id = _reference(item, place)
        if item_id is not None and item_id not in stored:
            raise refuse(f"{place}.id", f"no item {item_id[:MAX_SHOWN_CHARS]!r} is stored here")
        items.append(item if item_id is None else stored[item_id])
    return items


def response_of_item(item_id: str) -> str | None:
    """Return the id of the response that an item is stored with; None if the id is not ours."""
    found = _OWN_ITEM.match(item_id)
    return None if found is None else f"resp_{found['request']}"


def kept_items(items: Sequence[JsonObject], request_id: str) -> tuple[JsonObject, ...]:
    """Return readable items as they are stored and listed: each whole, with an id."""
    return tuple(
        _kept(item, f"{request_id}_i{number}")
        for number, item in enumerate(items)
        if _kind_of(item) in _PREFIXES
    )


def _kind_of(item: JsonObject) -> str:
    return msgspec.convert(item, Head).kind


def _kept(item: JsonObject, name: str) -> JsonObject:
    kind = _kind_of(item)
    made = {"id": f"{_PREFIXES[kind]}_{name}", "status": "completed"}
    given = {key: value for key, value in item.items() if value is not None}
    kept: JsonObject = made | given | {"type": kind}
    match kind:
        case "message":
            kept["content"] = _kept_content(kept["content"], assistant=item["role"] == "assistant")
        case "function_call":
            kept.setdefault("arguments", "{}")
        case "function_call_output":
            kept.setdefault("output", "")
        case "reasoning":
            kept.setdefault("summary", [])
    return kept


def _kept_content(content: str | list[JsonObject], *, assistant: bool) -> list[JsonObject]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    kind = "output_text" if assistant else "input_text"
    return [_kept_part(part, kind) for part in parts]


def _kept_part(part: JsonObject, text_kind: str) -> JsonObject:
    blank: dict[str, Any] = {"annotations": []} if text_kind == "output_text" else {}
    match part["type"]:
        case "text" | "input_text" | "output_text":
            return blank | part | {"type": text_kind}
        case "input_image":
            return {"detail": "auto"} | part
        case _:
            return part
