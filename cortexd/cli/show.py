"""Progress on the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cortex_core.canonical import Loading
from cortexd.admin.types import Draining


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
