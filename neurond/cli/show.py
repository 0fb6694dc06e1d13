"""Tables, progress bars and JSON on the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from cortex_core.neuron_api import (
    DeviceHealth,
    DeviceInfo,
    Discovery,
    Health,
    LoadProgress,
    NodeModel,
)
from cortex_core.terminal import print_table


def print_discovery(discovery: Discovery) -> None:
    """Print host and devices."""
    console = Console()
    console.print(f"{discovery.hostname}  {discovery.os}  Linux {discovery.kernel}")
    print_table(("DEVICE", "NAME", "MEMORY", "ATTENTION"), map(_device_row, discovery.devices))
    if discovery.cuda_unavailable_reason:
        console.print(f"no CUDA: {discovery.cuda_unavailable_reason}", style="dim")


def print_health(health: Health) -> None:
    """Print how the devices are."""
    columns = ("DEVICE", "STATE", "USED", "FREE", "BUSY", "TEMP", "RESTARTS")
    print_table(columns, map(_health_row, health.devices))


def print_models(models: list[NodeModel]) -> None:
    """Print the models of a node."""
    columns = ("MODEL", "STATE", "DEVICE", "MEMORY", "CONTEXT", "RUNNING", "WAITING")
    print_table(columns, [row for model in models for row in _model_rows(model)])


@contextlib.contextmanager
def load_bar(model: str, *, quiet: bool) -> Iterator[Callable[[LoadProgress], None]]:
    """Show a load on stderr while the block runs; yields what takes its progress."""
    console = Console(file=sys.stderr)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=quiet, transient=True) as progress:
        task = progress.add_task(model, total=None)

        def update(step: LoadProgress) -> None:
            eta = "" if step.eta_s is None else f", {step.eta_s:.0f} s left"
            progress.update(
                task,
                description=f"{model}: {step.stage}{eta}",
                total=None if step.progress is None else 1.0,
                completed=step.progress or 0.0,
            )

        yield update


def _device_row(device: DeviceInfo) -> tuple[str, str, str, str]:
    return (
        device.id,
        device.name,
        f"{device.vram_total_mb} MiB",
        device.attention_backend or "-",
    )


def _health_row(device: DeviceHealth) -> tuple[object, ...]:
    return (
        device.id,
        device.state,
        f"{device.vram_used_mb} MiB",
        f"{device.vram_free_mb} MiB",
        _or_dash(device.utilization_pct, "%"),
        _or_dash(device.temp_c, " °C"),
        device.restarts,
    )


def _model_rows(model: NodeModel) -> Iterator[tuple[object, ...]]:
    progress = model.loading.progress if model.loading else None
    yield (
        model.id,
        model.status if progress is None else f"{model.status} {progress:.0%}",
        ", ".join(model.devices) or "-",
        f"{model.vram_used_mb} MiB" if model.vram_used_mb else "-",
        _or_dash(model.limit.context),
        model.running,
        model.waiting,
    )
    if not model.servable.ok:
        yield "", f"  {model.servable.detail or model.servable.reason}"


def _or_dash(value: int | None, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"
