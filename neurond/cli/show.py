"""The tables of a node on the terminal."""

from collections.abc import Iterator

from rich.console import Console

from cortex_core.neuron_api import (
    DeviceHealth,
    DeviceInfo,
    Discovery,
    Health,
    NodeModel,
)
from cortex_core.terminal import print_table


def print_discovery(discovery: Discovery) -> None:
    """Print host and devices."""
    console = Console()
    console.print(f"{discovery.hostname}  {discovery.os}  Linux {discovery.kernel}")
    columns = ("DEVICE", "NAME", "MEMORY", "ATTENTION", "KERNELS")
    print_table(columns, map(_device_row, discovery.devices))
    for device in discovery.devices:
        if device.kernels_unavailable_reason:
            reason = f"no CPU kernels: {device.kernels_unavailable_reason}"
            console.print(reason, style="dim", markup=False)
    if discovery.cuda_unavailable_reason:
        console.print(f"no CUDA: {discovery.cuda_unavailable_reason}", style="dim")


def print_health(health: Health) -> None:
    """Print how the devices are."""
    columns = ("DEVICE", "STATE", "USED", "FREE", "BUSY", "TEMP", "RESTARTS")
    print_table(columns, map(_health_row, health.devices))


def print_models(models: list[NodeModel]) -> None:
    """Print the models of a node."""
    columns = ("MODEL", "STATE", "DEVICE", "MEMORY", "WEIGHTS", "CONTEXT", "RUNNING", "WAITING")
    print_table(columns, [row for model in models for row in _model_rows(model)])


def _device_row(device: DeviceInfo) -> tuple[str, ...]:
    return (
        device.id,
        device.name,
        f"{device.vram_total_mb} MiB",
        device.attention_backend or "-",
        device.kernels or "-",
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
        _kept_in(model),
        _or_dash(model.limit.context),
        model.running,
        model.waiting,
    )
    if not model.servable.ok:
        yield "", f"  {model.servable.detail or model.servable.reason}"
    if model.kernels_unavailable_reason:
        yield "", f"  torch computes it: {model.kernels_unavailable_reason}"


def _kept_in(model: NodeModel) -> str:
    if model.dtype is None:
        return "-"
    return f"{model.dtype} {model.kernels}{', KV int8' if model.kv_dtype == 'int8' else ''}"


def _or_dash(value: int | None, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"
