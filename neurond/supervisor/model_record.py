"""What the supervisor keeps of one model that was asked for."""

import asyncio
from pathlib import Path

import msgspec

from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import LoadProgress, LoadRequest
from neurond import protocol
from neurond.lifecycle.model import ModelLifecycle
from neurond.memory_plan import MemoryPlan
from neurond.sources.prepared import PreparedModel
from neurond.supervisor.ports import ProgressCallback

_HELD_STATES = ("loading", "ready", "draining", "unloading")


class Reservation(msgspec.Struct, frozen=True):
    """Memory that a model has, or is to get, on a device."""

    device: DeviceName
    size_bytes: int
    arriving: bool
    """It is not allocated yet, or may not be."""


class ModelRecord:
    """One model on this node since it was first asked for.

    Attributes:
        lifecycle: its state; only `Models` sends it events.
        request: the load it came with, used again after an actor's death.
        device: where it is or goes; None until it is placed.
        plan: what was asked of the actor.
        prepared: its manifest; None until it is placed.
        loaded: what the actor gave; None while it is not loaded.
        kv_usage: what the actor told last of its K/V blocks.
        progress: how far a load is; None while there is none.
    """

    def __init__(self, request: LoadRequest) -> None:
        self.lifecycle = ModelLifecycle(request.model_id)
        self.request = request
        self.device: DeviceName | None = None
        self.plan: MemoryPlan | None = None
        self.loaded: protocol.ModelLoaded | None = None
        self.kv_usage: protocol.KvUsage | None = None
        self.progress: LoadProgress | None = None
        self.folder: Path | None = None
        self.prepared: PreparedModel | None = None
        self.told_state = self.lifecycle.state
        self.deadline_s: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.load_waiters: list[asyncio.Future[None]] = []
        self.unload_waiters: list[asyncio.Future[None]] = []
        self.listeners: list[ProgressCallback] = []

    @property
    def model_id(self) -> ModelId:
        return self.request.model_id

    @property
    def reservation(self) -> Reservation | None:
        """What is planned for it now, or what it was found to take."""
        if self.plan is None or self.device is None or self.lifecycle.state not in _HELD_STATES:
            return None
        if self.loaded is None:
            return Reservation(self.device, self.plan.total_bytes, arriving=True)
        activations = self.loaded.activation_bytes
        if activations is None:
            activations = self.plan.activation_bytes
        taken = self.loaded.weights_bytes + self.loaded.kv_cache_bytes + activations
        return Reservation(self.device, taken, arriving=False)
