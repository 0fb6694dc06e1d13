"""Tables, progress bars and JSON on the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cortex_core.canonical import Loading
from cortexd.admin.types import Draining


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table in the house's plain style. A cell of None stays empty."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(markup=False, highlight=False).print(table)


def drain_lines(name: str, *, quiet: bool) -> Callable[[Any], None]:
    """Return what takes `Draining` off the socket and says on stderr when the number changes."""
    told = 0

    def show(value: Any) -> None:
        nonlocal told
        left = msgspec.convert(value, Draining).in_flight
        if left != told and not quiet:
            print(f"{name}: {left} requests still run", file=sys.stderr)
        told = left

    return show


@contextlib.contextmanager
def load_bar(model: str, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a load on stderr; the yielded function takes `Loading` as it comes off the socket."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[model]} {task.fields[stage]}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, model=model, stage="queued")

        def show(value: Any) -> None:
            loading = msgspec.convert(value, Loading)
            total = None if loading.progress is None else 1.0
            progress.update(
                task, total=total, completed=loading.progress or 0.0, stage=loading.stage
            )

        yield show
