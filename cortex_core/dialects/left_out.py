"""What of a request was left out, told in a header of its answer."""

from typing import Final

from cortex_core.dialects.base import Decoded

HEADER: Final = "x-cortex-ignored"
_MAX_CHARS: Final = 1000
"""Of the header's value; proxies refuse answers with long ones."""


def left_out_headers(decoded: Decoded) -> dict[str, str]:
    """Return the header that names JSON paths of the request, the last ones where all are many.

    The last ones are those of this turn and of the tools; earlier turns were answered before.
    """
    if not decoded.ignored:
        return {}
    shown: list[str] = []
    room = _MAX_CHARS
    for path in reversed(decoded.ignored):
        room -= len(path) + 2
        if room < 0:
            shown.append("...")
            break
        shown.append(path)
    return {HEADER: ", ".join(reversed(shown))}
