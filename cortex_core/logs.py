"""One line of text for each event, on stderr: `level logger phrase key=value ...`.

The phrase is fixed, what varies stands in fields: `log.info("actor died", extra=kv(device=d))`.
Time and host are the journal's to add.
"""

import json
import logging
import re
import sys
from typing import Any, TextIO

from cortex_core.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")

_FIELDS = "fields"
_FIRST = "request_id"
_PLAIN = re.compile(r'[^\s"=\\]+')


def kv(**fields: object) -> dict[str, Any]:
    """Return fields for a record's `extra`. A field of None is left out."""
    return {_FIELDS: fields}


def set_up_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every record of this process from `level` on to `stream`, by default stderr.

    Replaces what was set up before; warnings of the interpreter are logged too.

    Raises:
        ConfigError: there is no such level.
    """
    if level not in LEVELS:
        raise ConfigError(f"cannot log at level {level!r}: expected one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


class LineFormatter(logging.Formatter):
    """Writes a record as one line; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = dict(getattr(record, _FIELDS, {}))
        words = [record.levelname.lower(), record.name, _one_line(record.getMessage())]
        if _FIRST in fields:
            fields = {_FIRST: fields.pop(_FIRST), **fields}
        words += [f"{key}={_value(value)}" for key, value in fields.items() if value is not None]
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            line += "\n" + self.formatStack(record.stack_info)
        return line


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and _PLAIN.fullmatch(text) else _quoted(text)


def _one_line(text: str) -> str:
    # What a client wrote must not be able to forge a line of its own.
    return text if text.isprintable() else _quoted(text)[1:-1]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())
