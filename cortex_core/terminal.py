"""How both command lines print: JSON documents, and tables in one plain style."""

import sys
from collections.abc import Iterable
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

_UNBOUNDED_COLUMNS: Final = 10_000
"""Width where no terminal limits it: a pipe gets every row in one line."""


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table on stdout. A cell of None stays empty; what is too long is wrapped, not cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else _UNBOUNDED_COLUMNS
    Console(markup=False, highlight=False, width=width).print(table)
