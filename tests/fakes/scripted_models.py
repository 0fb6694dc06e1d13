"""Folders of scripted models: what they answer is up to the test."""

import json
from pathlib import Path
from typing import Any

from cortex_core.ids import ModelId


def write_script(folder: Path, *rules: dict[str, Any], **settings: Any) -> ModelId:
    """Write a script of these rules; return the model's id."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [_line(key, value) for key, value in settings.items()]
    for rule in rules:
        lines += ["", "[[rules]]", *(_line(key, value) for key, value in rule.items())]
    (folder / "script.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ModelId(f"file:{folder}")


def call(name: str, **arguments: Any) -> str:
    """Return a tool call as a model of the Hermes kind writes it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def spoilt(written: str) -> str:
    """Return a call of which the last argument, a text, ends too soon and is followed by more."""
    place = written.rindex('"}')
    return f'{written[:place]}x" "y"{written[place + 1 :]}'


def _line(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
