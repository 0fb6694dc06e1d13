"""Nodes and a dispatcher for tests of the deciding classes: no sockets, no clocks."""

from typing import Any

from cortex_core.ids import DeviceName, ModelId, NodeName, RequestId
from cortex_core.neuron_api import (
    Activation,
    DeviceHealth,
    DeviceInfo,
    DeviceState,
    Discovery,
    Health,
    ModelState,
    NodeModel,
)
from cortexd.config import AdmissionConfig, FleetConfig, ModelConfig, ModelsConfig
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.columns import ColumnTable
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.effects import Effect, StartLoad, Tell
from cortexd.fleet.events import NodePolled
from cortexd.fleet.eviction import EvictionPolicy
from cortexd.fleet.protocol import Acquire, Granted, Rejected
from cortexd.fleet.state import FleetState

WORKER = b"worker"


def node_model(
    model: str, status: ModelState = "ready", *, mb: int = 1000, device: str = "cuda-0", **more: Any
) -> NodeModel:
    """Return a model as a node tells of it. `mb` is what it takes, or its files where unloaded."""
    loaded = status in ("ready", "draining")
    return NodeModel(
        id=ModelId(model),
        harness="torch",
        status=status,
        devices=[DeviceName(device)] if status != "unloaded" else [],
        vram_used_mb=mb if loaded else 0,
        size_mb=None if loaded else mb,
        **more,
    )


def polled(
    node: str,
    *models: NodeModel,
    vram_mb: int | tuple[int, ...] = 10_000,
    version: int = 1,
    boot: str = "boot-0",
    at: float = 0.0,
    harness: str = "torch",
    draining: bool = False,
    quants: tuple[str, ...] = (),
    max_tensor_parallel: int = 1,
    devices_are: DeviceState = "ready",
) -> NodePolled:
    """Return a poll in which the models' memory is taken off the devices' total."""
    totals = (vram_mb,) if isinstance(vram_mb, int) else vram_mb
    names = [DeviceName(f"cuda-{n}") for n in range(len(totals))]
    infos = [DeviceInfo(n, f"GPU {n}", totals[n], name) for n, name in enumerate(names)]
    used = {
        name: sum(m.vram_used_mb // len(m.devices) for m in models if name in m.devices)
        for name in names
    }
    devices = [
        DeviceHealth(n, name, devices_are, used[name], totals[n] - used[name])
        for n, name in enumerate(names)
    ]
    return NodePolled(
        node=NodeName(node),
        discovery=Discovery(
            node,
            "Linux",
            "6",
            infos,
            [harness],
            "0",
            boot,
            quants=list(quants),
            max_tensor_parallel=max_tensor_parallel,
        ),
        health=Health(1.0, version, draining, devices, Activation("done")),
        state_version=version,
        models=models,
        started_at=at,
    )


def dispatcher_of(
    *nodes: str,
    models: tuple[ModelConfig, ...] = (),
    strategy: Any = "lru",
    collate_s: float = 20.0,
    defrag_after_cycles: int = 0,
    now: float = 0.0,
    **admission: Any,
) -> Dispatcher:
    """Return a dispatcher that has not heard of its nodes yet."""
    state = FleetState(
        {NodeName(name): f"http://{name}:1" for name in nodes},
        columns=ColumnTable(16),
        unhealthy_after=3,
        now=now,
    )
    return Dispatcher(
        state,
        Catalogue(ModelsConfig(models=models), AdmissionConfig(**admission)),
        EvictionPolicy(strategy),
        FleetConfig(),
        collate_s=collate_s,
        defrag_after_cycles=defrag_after_cycles,
        default_scheme="file",
    )


def ask(dispatcher: Dispatcher, model: str, name: str, now: float, **more: Any) -> list[Effect]:
    """Let a worker ask for a place."""
    return dispatcher.acquire(WORKER, Acquire(RequestId(name), ModelId(model), **more), now)


def loads(effects: list[Effect]) -> list[StartLoad]:
    return [effect for effect in effects if isinstance(effect, StartLoad)]


def answers(effects: list[Effect]) -> dict[str, Granted | Rejected]:
    """Return the last words to waiters, by request."""
    found: dict[str, Granted | Rejected] = {}
    for effect in effects:
        if isinstance(effect, Tell) and isinstance(effect.message, Granted | Rejected):
            found[effect.message.request_id] = effect.message
    return found
