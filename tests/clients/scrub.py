"""A recorded request without the words in it: they are its client's and of this machine. Pure.

Members, types, order, names of tools and parameters and the keywords of schemas stay. Texts become
words of the same length, with their spaces, marks and line ends where they were; ids become counted
ones of the same shape, the same wherever they stand.
"""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

MODEL = "small"
"""What every model is called afterwards."""
KEPT = frozenset(
    (
        *("$ref", "$schema", "const", "detail", "effort", "enum", "format", "include", "keep"),
        *("model", "name", "pattern", "phase", "required", "role", "service_tier", "status"),
        *("summary", "syntax", "tool_choice", "ttl", "type", "verbosity"),
    )
)
"""Members whose strings mean something to the server, or to who reads a schema."""
IDS = frozenset(("id", "call_id", "tool_call_id", "tool_use_id", "prompt_cache_key"))
OPAQUE = frozenset(("client_metadata", "metadata"))
"""Members of a body with nothing but ids, times and facts of the client's machine."""
WORDS = (
    "a of to in by sun oak sea fog leaf rain moss lake river stone cloud field meadow copper"
    " willow garden lantern harbour thimble orchard mountain twilight sandbank lighthouse"
    " waterfall riverbank strawberry greenhouse"
)
"""What texts are filled with."""
HEADERS = ("accept", "content-type", "originator", "user-agent", "x-app")
HEADER_PREFIXES = ("anthropic-", "openai-")
SOME_TIME = 1_700_000_000
BILLING_LINE = re.compile(r"x-anthropic-billing-header:")

_LONGEST = max(map(len, WORDS.split()))
_RUN = re.compile(r"[^\W_]+")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}")


def scrub_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those that say what is asked for, and the client's name without its machine's."""
    return {
        name: value.partition(" (")[0] if name == "user-agent" else value
        for name, value in headers.items()
        if name in HEADERS or name.startswith(HEADER_PREFIXES)
    }


def scrub(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request's body with other words."""
    scrubber = _Scrub()
    scrubbed = {key: scrubber.value(body[key], key, says=key in OPAQUE) for key in body}
    return scrubbed | {"model": MODEL}


def filler(text: str) -> str:
    """Return words of the same length; digits become zeros."""
    seed = text.encode("utf-8", "surrogatepass")

    def other(run: re.Match[str]) -> str:
        words = _words(len(run[0]), zlib.crc32(b"%d %b" % (run.start(), seed)))
        return "".join("0" if c.isdigit() else w for c, w in zip(run[0], words, strict=True))

    if line := BILLING_LINE.match(text):
        values = re.sub(r"(?<==)[^;]*", lambda value: _RUN.sub(other, value[0]), text[line.end() :])
        return line[0] + values
    return _RUN.sub(other, text)


def _words(length: int, number: int) -> str:
    """Return words without spaces between them, chosen by `number`."""
    if length > _LONGEST:
        return _words(_LONGEST, number) + _words(length - _LONGEST, number)
    fitting = [word for word in WORDS.split() if len(word) == length]
    return fitting[number % len(fitting)]


class _Scrub:
    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def value(self, value: Any, key: str, *, says: bool) -> Any:
        """`says`: all strings in there are words (arguments of a call, say), whatever their key."""
        if isinstance(value, dict):
            calls = value.get("type") == "tool_use"
            return {
                name: self.value(inner, name, says=says or (calls and name == "input"))
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.value(inner, key, says=says) for inner in value]
        if isinstance(value, str):
            return self._string(value, key, says=says)
        if says and isinstance(value, int) and value > SOME_TIME:
            return SOME_TIME
        return value

    def _string(self, text: str, key: str, *, says: bool) -> str:
        if (inner := _json_object(text)) is not None:
            separators = None if '": ' in text else (",", ":")
            other = self.value(inner, "", says=True)
            return json.dumps(other, ensure_ascii=False, separators=separators)
        if not says and key in IDS:
            return self._id(text)
        if not says and (key in KEPT or (key == "default" and " " not in text)):
            return text
        if " " not in text and _ID.search(text):
            return _ID.sub(lambda found: self._id(found[0]), text)
        return filler(text)

    def _id(self, given: str) -> str:
        if given not in self._ids:
            kind = re.match(r"(?:[a-z]+_)?", given)
            assert kind is not None
            number = str(len(self._ids) + 1)
            shape = re.sub(r"[0-9A-Za-z]", "0", given[kind.end() :])
            self._ids[given] = kind[0] + shape[: -len(number)] + number
        return self._ids[given]


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
