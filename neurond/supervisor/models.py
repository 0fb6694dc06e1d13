"""The models of this node: loading, reloading after an actor's death, and unloading.

Lives on the supervisor's loop and carries out what each `ModelLifecycle` decides. Loads are
single-flight per model: whoever asks while one is under way waits for the same one, and a caller
that gives up does not stop it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, assert_never

from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InternalError,
    ModelNotLoaded,
    Overloaded,
    error_from_info,
)
from cortex_core.ids import DeviceName, ModelId
from cortex_core.logs import kv
from cortex_core.neuron_api import DeviceState, LoadProgress, LoadRequest
from neurond import protocol
from neurond.lifecycle import model as decisions
from neurond.memory_plan import MemoryPlan
from neurond.sources.prepared import PreparedModel, read_manifest
from neurond.supervisor.model_record import ModelRecord, Reservation
from neurond.supervisor.ports import ModelLibrary, ProgressCallback
from neurond.supervisor.settings import SupervisorSettings

MAX_STRANGERS = 64
"""Models that were asked for and never placed on a device, whose error is still shown."""

_log = logging.getLogger(__name__)

_SETTLED_STATES = ("ready", "unloaded", "failed")


class ModelDevices(Protocol):
    """What loading needs of the node's devices."""

    def place(
        self, request: LoadRequest, model: PreparedModel, reserved: Collection[Reservation]
    ) -> tuple[DeviceName, MemoryPlan]:
        """Choose a device and what to allocate there, beside what is `reserved`.

        Raises:
            CortexError: the model fits nowhere, or the request names what is not there.
        """
        ...

    def state_of(self, device: DeviceName) -> DeviceState: ...

    def send(self, device: DeviceName, command: protocol.DataCommand) -> None: ...

    def is_busy(self, device: DeviceName, model_id: ModelId) -> bool: ...

    def declare_hung(self, device: DeviceName, reason: str) -> None: ...


class Models:
    """Every model that was asked for, by id.

    `on_change` is called after each change of a model's state.
    """

    def __init__(
        self,
        library: ModelLibrary,
        devices: ModelDevices,
        settings: SupervisorSettings,
        on_change: Callable[[], None],
    ) -> None:
        self._library = library
        self._devices = devices
        self._settings = settings
        self._on_change = on_change
        self._models: dict[ModelId, ModelRecord] = {}

    def find(self, model_id: ModelId) -> ModelRecord | None:
        return self._models.get(model_id)

    def all(self) -> list[ModelRecord]:
        return list(self._models.values())

    def on_device(self, device: DeviceName) -> list[ModelRecord]:
        return [model for model in self._models.values() if model.device == device]

    def is_busy(self, model: ModelRecord) -> bool:
        """Tell whether anything runs on the model or waits for it."""
        return model.device is not None and self._devices.is_busy(model.device, model.model_id)

    def is_settled(self, device: DeviceName) -> bool:
        """Say whether no model is on its way to or from the device."""
        return all(m.lifecycle.state in _SETTLED_STATES for m in self.on_device(device))

    async def load(self, request: LoadRequest, on_progress: ProgressCallback) -> None:
        """Return when the model is ready. The caller has checked that it may be loaded.

        Raises:
            CortexError: the load failed, for everyone who waits for it.
        """
        model = self._models.get(request.model_id)
        if model is None or model.lifecycle.state in ("unloaded", "failed"):
            self._forget_strangers()
            model = self._models[request.model_id] = ModelRecord(request)
        waiter = asyncio.get_running_loop().create_future()
        model.load_waiters.append(waiter)
        model.listeners.append(on_progress)
        if model.progress is not None:
            on_progress(model.progress)
        self._apply(model, model.lifecycle.load_requested())
        try:
            await waiter
        finally:
            model.listeners.remove(on_progress)

    async def unload(self, model: ModelRecord, *, force: bool) -> None:
        """Return when the model's memory is free.

        Raises:
            CortexError: it became something else than unloaded.
        """
        waiter = asyncio.get_running_loop().create_future()
        model.unload_waiters.append(waiter)
        busy = self.is_busy(model)
        effects = model.lifecycle.unload_requested(busy=busy, force=force)
        if model.lifecycle.state == "draining":
            model.deadline_s = time.monotonic() + self._settings.unload_drain_s
        self._apply(model, effects)
        await waiter

    def request_ended(self, model_id: ModelId) -> None:
        """A request of the model is over; the last one ends its drain."""
        model = self._models.get(model_id)
        if model and model.lifecycle.state == "draining" and not self.is_busy(model):
            self._apply(model, model.lifecycle.drained())

    def device_ready(self, device: DeviceName) -> None:
        """Send the device everything that waits for it."""
        for model in self.on_device(device):
            if model.lifecycle.state == "loading":
                self._send_load(model)

    def device_died(self, device: DeviceName, error: CortexError, *, asked_for: bool) -> None:
        """Reload what was loaded there; fail what was being loaded for the first time.

        With `asked_for`, that is loaded there again too.
        """
        for model in self.on_device(device):
            model.loaded = None
            model.deadline_s = None
            self._apply(model, model.lifecycle.actor_died(error.info(), asked_for=asked_for))

    def notice(self, notice: protocol.ModelNotice) -> None:
        """Take what an actor says of a model."""
        model = self._models.get(notice.model_id)
        if model is None:
            _log.error("notice of an unknown model", extra=kv(model=notice.model_id))
            return
        match notice:
            case protocol.ModelLoading(_, progress):
                self._tell(model, LoadProgress("loading", progress))
            case protocol.ModelLoaded():
                model.loaded, model.kv_usage = notice, None
                self._apply(model, model.lifecycle.loaded())
            case protocol.ModelLoadFailed(_, error):
                self._apply(model, model.lifecycle.load_failed(error))
            case protocol.KvUsage():
                model.kv_usage = notice
            case protocol.ModelUnloaded():
                model.loaded = None
                self._apply(model, model.lifecycle.unloaded())
            case _:
                assert_never(notice)

    def tick(self, now: float) -> None:
        """Look at deadlines of loads and drains."""
        for model in self._models.values():
            if model.deadline_s is None or now < model.deadline_s:
                continue
            model.deadline_s = None
            if model.lifecycle.state == "draining":
                self._apply(model, model.lifecycle.unload_requested(busy=True, force=True))
            elif model.lifecycle.state == "loading" and model.device is not None:
                reason = f"loading {model.model_id} took {self._settings.load_deadline_s:g} s"
                self._devices.declare_hung(model.device, reason)

    async def close(self, error: CortexError) -> None:
        """Stop fetching and fail everyone who waits; called once, before the devices stop."""
        tasks = [model.task for model in self._models.values() if model.task is not None]
        for task in tasks:
            task.cancel()
        for model in self._models.values():
            _settle([*model.load_waiters, *model.unload_waiters], error)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_strangers(self) -> None:
        """Keep no more than some failures: their names are whatever a client wrote."""
        strangers = [
            model_id
            for model_id, model in self._models.items()
            if model.prepared is None and model.lifecycle.state in ("failed", "unloaded")
        ]
        for model_id in strangers[:-MAX_STRANGERS]:
            del self._models[model_id]

    def _apply(self, model: ModelRecord, effects: Sequence[decisions.ModelEffect]) -> None:
        for effect in effects:
            match effect:
                case decisions.Fetch():
                    self._tell(model, LoadProgress("queued"))
                    model.task = asyncio.create_task(self._fetch(model))
                case decisions.Load():
                    self._tell(model, LoadProgress("loading"))
                    if model.device and self._devices.state_of(model.device) == "ready":
                        self._send_load(model)
                case decisions.Unload():
                    self._send_unload(model)
                case decisions.Abandon():
                    if model.task is not None:
                        model.task.cancel()
                case decisions.Settle(error):
                    self._settle(model, error)
                case _:
                    assert_never(effect)
        if model.told_state != model.lifecycle.state:
            model.told_state = model.lifecycle.state
            fields = kv(model=model.model_id, state=model.told_state, device=model.device)
            _log.info("model changed", extra=fields)
            self._on_change()

    async def _fetch(self, model: ModelRecord) -> None:
        try:
            folder = await self._library.ensure(model.model_id, lambda p: self._tell(model, p))
            manifest = read_manifest(folder)
            model.device, model.plan = self._devices.place(
                model.request, manifest, self._reserved()
            )
            model.folder, model.prepared = folder, manifest
            self._apply(model, model.lifecycle.fetched())
        except CortexError as ex:
            self._apply(model, model.lifecycle.load_failed(ex.info()))
        except Exception as ex:  # noqa: BLE001 - a defect here must not leave callers waiting
            self._apply(model, model.lifecycle.load_failed(_defect(model, ex)))

    def _reserved(self) -> list[Reservation]:
        held = [model.reservation for model in self._models.values()]
        return [reservation for reservation in held if reservation is not None]

    def _send_load(self, model: ModelRecord) -> None:
        model.deadline_s = time.monotonic() + self._settings.load_deadline_s
        try:
            self._devices.send(*_load_command(model))
        except CortexError as ex:
            self._apply(model, model.lifecycle.load_failed(ex.info()))
        except Exception as ex:  # noqa: BLE001 - nobody awaits this: the model would load forever
            self._apply(model, model.lifecycle.load_failed(_defect(model, ex)))

    def _send_unload(self, model: ModelRecord) -> None:
        model.deadline_s = None
        assert model.device is not None
        try:
            self._devices.send(model.device, protocol.UnloadModel(model.model_id))
        except Overloaded:
            self._devices.declare_hung(model.device, "it reads no commands")
        except CortexError as ex:
            _log.warning("unload not sent", extra=kv(model=model.model_id, cause=ex.message))

    def _settle(self, model: ModelRecord, error: ErrorInfo | None) -> None:
        model.progress = None
        model.deadline_s = None
        state = model.lifecycle.state
        if error is not None:
            _log.warning("model not loaded", extra=kv(model=model.model_id, cause=error.message))
        failure = error_from_info(error) if error else None
        if failure is None and state != "ready":
            failure = ModelNotLoaded(f"cannot use {model.model_id}: it was unloaded")
        _settle(model.load_waiters, failure)
        model.load_waiters = []
        if state in ("unloaded", "failed"):
            _settle(model.unload_waiters, None)
            model.unload_waiters = []

    def _tell(self, model: ModelRecord, progress: LoadProgress) -> None:
        model.progress = progress
        for listener in tuple(model.listeners):
            listener(progress)


def _load_command(model: ModelRecord) -> tuple[DeviceName, protocol.LoadModel]:
    device, plan, folder = model.device, model.plan, model.folder
    if device is None or plan is None or folder is None:
        raise InternalError(f"cannot load {model.model_id}: it was not placed")
    return device, protocol.LoadModel(
        model_id=model.model_id,
        model_dir=str(folder),
        dtype=plan.dtype,
        fallback_dtype=plan.fallback_dtype,
        context_tokens=plan.context_tokens,
        max_sequences=plan.max_sequences,
        kv_cache_bytes=plan.kv_cache_bytes,
        block_tokens=plan.block_tokens,
        kv_dtype=plan.kv_dtype,
        speculation=model.request.profile.speculation,
    )


def _defect(model: ModelRecord, ex: Exception) -> ErrorInfo:
    """Log what should not have happened; returns it as a load's error."""
    _log.error("load failed", extra=kv(model=model.model_id), exc_info=ex)
    error = InternalError(f"cannot load {model.model_id}: {type(ex).__name__}: {ex}")
    return error.info()


def _settle(waiters: Sequence[asyncio.Future[None]], error: CortexError | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
