"""Tables, progress bars and JSON on the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from cortex_core.neuron_api import DeviceInfo, Discovery, Health, LoadProgress, NodeModel


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(*columns: str) -> Table:
    """Return an empty table in the house's plain style."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column)
    return made


def print_discovery(discovery: Discovery) -> None:
    """Print host and devices."""
    console = Console()
    console.print(f"{discovery.hostname}  {discovery.os}  Linux {discovery.kernel}")
    devices = table("DEVICE", "NAME", "MEMORY", "ATTENTION")
    for device in discovery.devices:
        devices.add_row(*_device_row(device))
    console.print(devices)
    if discovery.cuda_unavailable_reason:
        console.print(f"no CUDA: {discovery.cuda_unavailable_reason}", style="dim")


def print_health(health: Health) -> None:
    """Print how the devices are."""
    devices = table("DEVICE", "STATE", "USED", "FREE", "BUSY", "TEMP", "RESTARTS")
    for device in health.devices:
        devices.add_row(
            device.id,
            device.state,
            f"{device.vram_used_mb} MiB",
            f"{device.vram_free_mb} MiB",
            _or_dash(device.utilization_pct, "%"),
            _or_dash(device.temp_c, " °C"),
            str(device.restarts),
        )
    Console().print(devices)


def print_models(models: list[NodeModel]) -> None:
    """Print the models of a node."""
    shown = table("MODEL", "STATE", "DEVICE", "MEMORY", "CONTEXT", "RUNNING", "WAITING")
    for model in models:
        progress = model.loading.progress if model.loading else None
        state = model.status if progress is None else f"{model.status} {progress:.0%}"
        shown.add_row(
            model.id,
            state,
            ", ".join(model.devices) or "-",
            f"{model.vram_used_mb} MiB" if model.vram_used_mb else "-",
            _or_dash(model.limit.context),
            str(model.running),
            str(model.waiting),
        )
        if not model.servable.ok:
            shown.add_row("", f"  {model.servable.detail or model.servable.reason}")
    Console().print(shown)


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


def _or_dash(value: int | None, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"
