"""Tools that Anthropic's clients name by a type: their schemas are fixed and left out on the wire.

These run at the client, and the model is given the schema that Anthropic's documentation and
reference implementations have for them. Types that run at Anthropic's servers have nobody to run
them here.
"""

import re
from typing import Final, NamedTuple

from cortex_core.canonical import JsonObject, Tool

_DATED: Final = re.compile(r"(?P<kind>bash|text_editor|memory|computer)_(?P<date>\d{8})")


def _object(required: list[str], **properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": required}


_TEXT: Final[JsonObject] = {"type": "string"}
_NUMBER: Final[JsonObject] = {"type": "integer"}
_NUMBERS: Final[JsonObject] = {"type": "array", "items": _NUMBER}

_BASH: Final = _object([], command=_TEXT, restart={"type": "boolean"})
_EDITING: Final[dict[str, JsonObject]] = {
    "path": _TEXT,
    "file_text": _TEXT,
    "old_str": _TEXT,
    "new_str": _TEXT,
    "insert_line": _NUMBER,
    "insert_text": _TEXT,
    "view_range": _NUMBERS,
}
_EDITOR_COMMANDS: Final = ("view", "create", "str_replace", "insert")
_UNDO_UNTIL: Final = "20250124"
"""The last editor that can undo."""
_MEMORY: Final = _object(
    ["command"],
    command={"type": "string", "enum": [*_EDITOR_COMMANDS, "delete", "rename"]},
    old_path=_TEXT,
    new_path=_TEXT,
    **_EDITING,
)

_POINTING: Final = (
    *("key", "type", "mouse_move", "left_click", "left_click_drag", "right_click"),
    *("middle_click", "double_click", "screenshot", "cursor_position"),
)
_FINER_POINTING: Final = (
    *("left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click"),
)
_FINER_SINCE: Final = "20250124"


class Screen(NamedTuple):
    """What a client says of the display behind its computer tool."""

    width_px: int | None
    height_px: int | None
    can_zoom: bool


def typed_tool(kind: str, name: str, screen: Screen) -> Tool | None:
    """Return the tool of this type, or None where no client runs it by a schema known here."""
    found = _DATED.fullmatch(kind)
    if found is None:
        return None
    date = found["date"]
    match found["kind"]:
        case "bash":
            return Tool(name, "Run a command in a bash shell that stays open between calls.", _BASH)
        case "text_editor":
            return Tool(name, "View, create and edit files.", _editor(date))
        case "memory":
            return Tool(name, "Keep notes in files under /memories.", _MEMORY)
        case _:
            return Tool(name, _seen_on(screen), _computer(date, screen))


def _editor(date: str) -> JsonObject:
    undo = ["undo_edit"] if date <= _UNDO_UNTIL else []
    commands: JsonObject = {"type": "string", "enum": [*_EDITOR_COMMANDS, *undo]}
    return _object(["command", "path"], command=commands, **_EDITING)


def _seen_on(screen: Screen) -> str:
    words = "Use the mouse and keyboard of a computer, and take screenshots of it."
    if screen.width_px is None or screen.height_px is None:
        return words
    return f"{words} The display is {screen.width_px} by {screen.height_px} pixels."


def _computer(date: str, screen: Screen) -> JsonObject:
    finer = _FINER_POINTING if date >= _FINER_SINCE else ()
    zoom = ("zoom",) if screen.can_zoom else ()
    region = {"region": _NUMBERS} if screen.can_zoom else {}
    return _object(
        ["action"],
        action={"type": "string", "enum": [*_POINTING, *finer, *zoom]},
        coordinate=_NUMBERS,
        start_coordinate=_NUMBERS,
        text=_TEXT,
        scroll_direction={"type": "string", "enum": ["up", "down", "left", "right"]},
        scroll_amount=_NUMBER,
        duration={"type": "number"},
        **region,
    )
