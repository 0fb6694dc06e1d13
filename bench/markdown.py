"""Tables in Markdown, and the places in a page that programs write them to."""

from collections.abc import Sequence
from pathlib import Path


class NoPlace(Exception):
    """A page lacks the markers of a section."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column reads from the left, the others are numbers."""
    rule = ["---", *["---:" for _ in headers[1:]]]
    lines = [headers, rule, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def with_section(page: str, name: str, text: str) -> str:
    """Return `page` with `text` between the markers of section `name`.

    Raises:
        NoPlace: the page does not have both of them once, in this order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed or begin in rest or end in head or end in tail:
        raise NoPlace(f"cannot write section {name!r}: the page needs '{begin}' and '{end}' once")
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}"


def write_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers of section `name` of the page at `path`.

    Raises:
        NoPlace: they are not there.
    """
    page = path.read_text(encoding="utf-8")
    path.write_text(with_section(page, name, text), encoding="utf-8")
