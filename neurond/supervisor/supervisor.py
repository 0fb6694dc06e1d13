"""The node's devices and models behind one object, for the HTTP API and the admin socket.

One per daemon, made and used on its event loop in the main thread. It decides what is for the
whole node: what may start, where a model goes, when all is drained.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from cortex_core.errors import (
    Conflict,
    CortexError,
    InvalidRequest,
    ModelNotFound,
    ModelNotLoaded,
    ModelUnloaded,
    ShuttingDown,
)
from cortex_core.ids import DeviceName, ModelId, new_boot_id
from cortex_core.neuron_api import (
    Discovery,
    Health,
    LoadRequest,
    LoadResponse,
    ModelProfile,
    NodeModel,
    UnloadRequest,
    UnloadResponse,
)
from neurond import protocol
from neurond.devices import Devices
from neurond.sources.prepared import PreparedModel
from neurond.supervisor.activation import ActivationRun
from neurond.supervisor.jobs import EmbedJob, EngineJob
from neurond.supervisor.model_record import ModelRecord
from neurond.supervisor.models import Models
from neurond.supervisor.pool import DevicePool
from neurond.supervisor.ports import ModelLibrary, ProgressCallback
from neurond.supervisor.settings import SupervisorSettings
from neurond.supervisor.streams import TokenStream
from neurond.supervisor.views import HARNESS, discovery_view, health_view, model_view

RETRY_AFTER_S = 1.0

_log = logging.getLogger(__name__)


class Supervisor:
    """Device actors, models on them, and requests to them.

    Attributes:
        boot_id: names this life of the node.
        state_version: grows by one with every change to models or devices.
        draining: no new work is taken.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        library: ModelLibrary,
        devices: Devices,
        profile_of: Callable[[ModelId], ModelProfile],
    ) -> None:
        """Start nothing yet; `profile_of` says what would hold for a model if it was loaded."""
        self.boot_id = new_boot_id()
        self.state_version = 1
        self.draining = False
        self._settings = settings
        self._library = library
        self._devices = devices
        self._profile_of = profile_of
        self._began_s = time.monotonic()
        self._activation = ActivationRun()
        self._pool = DevicePool(devices, settings)
        self._models = Models(library, self._pool, settings, self._changed)
        self._watch: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Spawn an actor for each device and return; devices become ready by and by.

        Raises:
            ConfigError: the runtime folder cannot be used.
            InternalError: this is not the main thread.
        """
        self._pool.start(self)
        self._watch = asyncio.create_task(self._tick())

    async def activate(self, requests: Sequence[LoadRequest]) -> None:
        """Load these models one after another; `health` tells how far it is."""
        await self._activation.run(requests, lambda request: self.load(request, _ignore))

    async def drain(self, timeout_s: float) -> None:
        """Take no new work; return when what runs has finished, or was failed after the time."""
        self.draining = True
        self._changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(actor.num_in_flight() for actor in self._pool.actors):
                    await self._next_change()
        for actor in self._pool.actors:
            actor.cancel_all(ShuttingDown("cannot go on: the node is shutting down"))

    async def stop(self) -> None:
        """End everything; no process, socket or segment is left. Idempotent.

        What still runs fails with `ShuttingDown`.
        """
        self.draining = True
        await self._models.close(ShuttingDown("cannot load: the node is shutting down"))
        await self._pool.stop()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        self._pool.close()

    def models(self) -> list[NodeModel]:
        """Return every model on disk, on its way or in memory, by id."""
        prepared = {model.model_id: model for model in self._library.prepared()}
        known = sorted({*prepared, *(model.model_id for model in self._models.all())})
        return [self._view(model_id, prepared.get(model_id)) for model_id in known]

    def models_asked_for(self) -> list[NodeModel]:
        """Return every model that was asked for since the start; reads no disk."""
        return [self._view(model.model_id, model.prepared) for model in self._models.all()]

    def model(self, model_id: ModelId) -> NodeModel:
        """Return one model; reads no disk for one that was loaded.

        Raises:
            ModelNotFound: it is neither on disk nor was it ever asked for.
        """
        known = self._models.find(model_id)
        if known is not None and known.prepared is not None:
            return self._view(model_id, known.prepared)
        prepared = {model.model_id: model for model in self._library.prepared()}
        if model_id not in prepared and self._models.find(model_id) is None:
            raise ModelNotFound(f"cannot find model {model_id!r} on this node", param="model")
        return self._view(model_id, prepared.get(model_id))

    def health(self) -> Health:
        """Measure the devices and describe the node; some milliseconds with many GPUs."""
        return Health(
            uptime_secs=time.monotonic() - self._began_s,
            state_version=self.state_version,
            draining=self.draining,
            devices=[
                health_view(actor, self._devices.measure(actor.info), draining=self.draining)
                for actor in self._pool.actors
            ],
            activation=self._activation.state(),
        )

    def discovery(self) -> Discovery:
        """Describe the host."""
        return discovery_view(self._devices, list(self._pool.actors), self.boot_id)

    async def load(self, request: LoadRequest, on_progress: ProgressCallback) -> LoadResponse:
        """Return when the model is ready, whoever asked for it first.

        A model that is loaded or on its way is joined whatever `state_version` says. Cancelling
        the caller does not stop the load.

        Raises:
            ShuttingDown: the node drains.
            Conflict: `state_version` is stale, or the model is being unloaded.
            InvalidRequest: the request names what this node does not have.
            ModelNotFound: no source knows the model.
            ModelLoadFailed: it cannot be fetched or read.
            OutOfMemory: it does not fit; the message has the arithmetic.
            DeviceFailed: the actor died while loading it.
        """
        self._refuse_while_draining("load a model")
        known = self._models.find(request.model_id)
        state = known.lifecycle.state if known else "unloaded"
        if state in ("draining", "unloading"):
            raise Conflict(
                f"cannot load {request.model_id}: it is being unloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        already_loaded = state == "ready"
        if state in ("unloaded", "failed"):
            _refuse_unsupported(request)
            self._refuse_stale(request.state_version)
        if not already_loaded:
            await self._models.load(request, on_progress)
        return LoadResponse(self.model(request.model_id), already_loaded, self.state_version)

    async def unload(self, request: UnloadRequest) -> UnloadResponse:
        """Return when the model's memory is free; a busy model drains first, for a bounded time.

        Raises:
            ModelNotLoaded: it is not in memory.
            Conflict: `state_version` is stale, or it was to be unloaded only if idle and is busy.
        """
        model = self._models.find(request.model_id)
        if model is None or model.lifecycle.state in ("unloaded", "failed"):
            raise ModelNotLoaded(f"cannot unload {request.model_id}: it is not loaded")
        self._refuse_stale(request.state_version)
        if request.only_idle and self._models.is_busy(model):
            raise Conflict(f"cannot unload {request.model_id}: requests run on it")
        if request.force and model.device is not None:
            # What an operator ends must not go on elsewhere, which would load the model again.
            ended = ModelUnloaded(f"cannot go on: {request.model_id} was unloaded by an operator")
            self._pool.get(model.device).cancel_all(ended, model.model_id)
        await self._models.unload(model, force=request.force)
        return UnloadResponse(request.model_id, self.state_version)

    async def restart_device(self, device: DeviceName, state_version: int | None) -> None:
        """Replace an idle device's actor; return when the new one is ready.

        Models that it had are loaded again after that. Cancelling the caller stops nothing.

        Raises:
            ShuttingDown: the node drains.
            InvalidRequest: there is no such device.
            Conflict: `state_version` is stale, or the device is not idle.
            DeviceFailed: the new actor does not come up; it is tried again in the background.
        """
        self._refuse_while_draining("restart a device")
        actor = self._pool.get(device)
        self._refuse_stale(state_version)
        idle = actor.state == "ready" and not actor.num_in_flight()
        if not (idle and self._models.is_settled(device)):
            raise Conflict(
                f"cannot restart device {device}: it is not idle; see /health and /models",
                retry_after_s=RETRY_AFTER_S,
            )
        actor.restart()
        # The lifecycle bounds it: an actor that does not come up in time has failed.
        while actor.state == "starting":
            await self._next_change()
        if actor.state != "ready":
            raise actor.failure

    def require_ready(self, model_id: ModelId) -> NodeModel:
        """Return a model that can be used now.

        Raises:
            ShuttingDown: the node drains.
            ModelNotFound: the node does not know the model.
            ModelNotLoaded: it is not in memory, or on its way out.
        """
        self._refuse_while_draining("take the request")
        view = self.model(model_id)
        if view.status != "ready":
            raise ModelNotLoaded(f"cannot use {model_id}: it is {view.status} on this node")
        return view

    def submit(self, job: EngineJob | EmbedJob) -> TokenStream:
        """Start a request on the model's device.

        Raises:
            ShuttingDown: the node drains.
            ModelNotLoaded: the model is not ready.
            DeviceFailed: its device is not.
            QueueFull: the device has as many requests as it may have.
            Overloaded: there is no room for the prompt; retry after `retry_after_s`.
        """
        self._refuse_while_draining("take the request")
        model = self._models.find(job.model_id)
        if model is None or model.device is None or model.lifecycle.state != "ready":
            state = model.lifecycle.state if model else "unloaded"
            raise ModelNotLoaded(f"cannot use {job.model_id}: it is {state} on this node")
        return self._pool.get(model.device).submit(job)

    async def ping(self, device: DeviceName, timeout_s: float) -> float:
        """Return the seconds of a round trip over a device's control socket.

        Raises:
            InvalidRequest: there is no such device.
            DeviceFailed: it is not ready.
            Timeout: there is no answer in time.
        """
        return await self._pool.get(device).ping(timeout_s)

    # What follows is called by the devices only: the supervisor is their `DeviceOwner`.

    def device_changed(self) -> None:
        self._changed()

    def device_ready(self, device: DeviceName) -> None:
        self._models.device_ready(device)

    def device_died(self, device: DeviceName, error: CortexError, *, asked_for: bool) -> None:
        self._models.device_died(device, error, asked_for=asked_for)

    def model_notice(self, notice: protocol.ModelNotice) -> None:
        self._models.notice(notice)

    def request_ended(self, model_id: ModelId) -> None:
        self._models.request_ended(model_id)
        self._news.set()

    def _view(self, model_id: ModelId, prepared: PreparedModel | None) -> NodeModel:
        model: ModelRecord | None = self._models.find(model_id)
        actor = self._pool.get(model.device) if model and model.device else None
        dtype = self._profile_of(model_id).dtype
        expected = self._pool.expected_bytes(prepared, dtype) if prepared else None
        return model_view(model, prepared, actor, expected)

    def _refuse_while_draining(self, what: str) -> None:
        if self.draining:
            raise ShuttingDown(f"cannot {what}: the node is shutting down")

    def _refuse_stale(self, version: int | None) -> None:
        if version is not None and version != self.state_version:
            raise Conflict(
                f"cannot decide on state {version}: the node's state is {self.state_version}"
            )

    def _changed(self) -> None:
        self.state_version += 1
        self._news.set()

    async def _next_change(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _tick(self) -> None:
        while True:
            now = time.monotonic()
            self._pool.tick(now)
            try:
                self._models.tick(now)
            except Exception:  # noqa: BLE001 - nobody looks at this task, which `stop` needs
                _log.exception("deadlines of models not looked at")
            await asyncio.sleep(self._settings.watch_interval_s)


def _refuse_unsupported(request: LoadRequest) -> None:
    if request.harness != HARNESS:
        raise InvalidRequest(
            f"cannot load {request.model_id}: this node has harness {HARNESS!r}, "
            f"not {request.harness!r}",
            param="harness",
        )
    if request.tensor_parallel != 1:
        raise InvalidRequest(
            f"cannot load {request.model_id}: this node runs a model on one device, "
            f"tensor_parallel is {request.tensor_parallel}",
            param="tensor_parallel",
        )
    if request.quant is not None:
        raise InvalidRequest(
            f"cannot load {request.model_id} as {request.quant!r}: this node takes weights as "
            "they are in the file; leave quant out",
            param="quant",
        )


def _ignore(_progress: object) -> None:
    """Nobody watches the loads of an activation but `/health`."""
