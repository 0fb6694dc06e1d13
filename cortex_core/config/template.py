"""Chat templates as configuration files give them: as text, or as the path of a file."""

from pathlib import Path
from typing import Final

from cortex_core.errors import ConfigError

_ONLY_IN_TEXT: Final = ("{{", "{%", "{#", "\n")


def template_text(given: str, *, file: Path, key: str) -> str:
    """Return Jinja text as it is, and for a path the text there; relative to the folder of `file`.

    Raises:
        ConfigError: it cannot be read; the error names `file`, `key` and the path.
    """
    if any(mark in given for mark in _ONLY_IN_TEXT):
        return given
    path = file.parent / given
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as ex:  # no UTF-8, or a name that no file can have
        why = ex.strerror if isinstance(ex, OSError) else ex
        raise ConfigError(
            f"cannot use {file}: {key}: cannot read the template file {str(path)!r}: {why}; "
            "give Jinja text or the path of a readable file",
            param=key,
        ) from ex
