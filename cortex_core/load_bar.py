"""The progress bar of a load, or of a fetch, on the terminal."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


class LoadStep(Protocol):
    """How far a load is; `Loading` and `LoadProgress` are such."""

    @property
    def stage(self) -> str: ...

    @property
    def progress(self) -> float | None:
        """0 to 1 over the stage, where known."""

    @property
    def eta_s(self) -> float | None: ...


@contextlib.contextmanager
def load_bar(model: str, *, quiet: bool) -> Iterator[Callable[[LoadStep], None]]:
    """Show a load on stderr while the block runs; yield what takes its steps."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet, transient=True) as progress:
        task = progress.add_task(f"{model}: queued", total=None)

        def show(step: LoadStep) -> None:
            eta = "" if step.eta_s is None else f", {step.eta_s:.0f} s left"
            progress.update(
                task,
                description=f"{model}: {step.stage}{eta}",
                total=None if step.progress is None else 1.0,
                completed=step.progress or 0.0,
            )

        yield show
