"""All devices of the node: started and stopped together, and asked where a model fits."""

import asyncio
import contextlib
import logging
from collections.abc import Collection

import zmq

from cortex_core.errors import InvalidRequest
from cortex_core.ids import DeviceName, ModelId, new_boot_id
from cortex_core.ipc.child import DeathPipe
from cortex_core.ipc.socket_paths import check_socket_path, make_runtime_dir
from cortex_core.ipc.sockets import ZmqContext
from cortex_core.logs import kv
from cortex_core.neuron_api import DeviceState, Dtype, LoadRequest
from neurond import protocol
from neurond.devices import Devices, computes_bfloat16
from neurond.host import host_threads
from neurond.kv_choice import choose_kv
from neurond.memory_plan import (
    CPU_KV_BYTES,
    MemoryPlan,
    block_tokens_for,
    plan_memory,
    weights_bytes,
)
from neurond.placement import DeviceRoom, choose_device
from neurond.sources.prepared import PreparedModel
from neurond.supervisor.device import DeviceActor, DeviceOwner
from neurond.supervisor.life import socket_paths, sweep_sockets
from neurond.supervisor.model_record import Reservation
from neurond.supervisor.settings import SupervisorSettings
from neurond.weight_choice import WeightChoice, choose_weights

_log = logging.getLogger(__name__)


class DevicePool:
    """Owns the actors, the ZeroMQ context and the pipe that ties actors to this process."""

    def __init__(self, devices: Devices, settings: SupervisorSettings) -> None:
        self._devices = devices
        self._settings = settings
        self._threads = settings.threads or host_threads()
        self._actors: dict[DeviceName, DeviceActor] = {}
        self._context: ZmqContext | None = None
        self._death: DeathPipe | None = None

    @property
    def actors(self) -> Collection[DeviceActor]:
        """In the order of discovery; empty before `start`."""
        return self._actors.values()

    def start(self, owner: DeviceOwner) -> None:
        """Spawn an actor for each device. Main thread, running loop.

        Raises:
            ConfigError: the runtime folder cannot be made, or its path is too long for sockets.
        """
        make_runtime_dir(self._settings.runtime_dir)
        sweep_sockets(self._settings.runtime_dir)
        for info in self._devices.found:
            # A path that is too long is the configuration's fault: no respawn will help.
            for path in socket_paths(self._settings.runtime_dir, info.id, new_boot_id()):
                check_socket_path(path)
        self._context = zmq.Context()
        self._death = DeathPipe()
        for info in self._devices.found:
            self._actors[info.id] = DeviceActor(
                info, self._settings, self._context, self._death, owner, threads=self._threads
            )
        for actor in self._actors.values():
            actor.start()

    async def stop(self) -> None:
        """End every actor; needs `tick` to be called meanwhile."""
        await asyncio.gather(*(actor.stop() for actor in self._actors.values()))

    def close(self) -> None:
        """Give back what all devices share; after `stop`. Idempotent."""
        if self._death is not None:
            self._death.close()
        if self._context is not None:
            self._context.destroy(linger=0)

    def tick(self, now: float) -> None:
        """Look at every device's deadlines, whatever goes wrong with one of them."""
        for actor in self._actors.values():
            try:
                actor.tick(now)
            except Exception:  # noqa: BLE001 - a defect here must not end the watch of all
                _log.exception("device not watched", extra=kv(device=actor.info.id))

    def get(self, device: DeviceName) -> DeviceActor:
        """Return a device's actor.

        Raises:
            InvalidRequest: there is no such device.
        """
        actor = self._actors.get(device)
        if actor is None:
            raise InvalidRequest(f"cannot use device {device!r}: this node has no such device")
        return actor

    def place(
        self, request: LoadRequest, model: PreparedModel, reserved: Collection[Reservation]
    ) -> tuple[DeviceName, MemoryPlan]:
        """Choose a device for a model and what to allocate there.

        Raises:
            InvalidRequest: the request names a device, or weights, that are not there.
            OutOfMemory: the model fits nowhere.
        """
        rooms = [self._room(actor, reserved) for actor in self._actors.values()]
        room = choose_device(request.model_id, request.devices, rooms)
        actor = self.get(room.device)
        kind = actor.info.kind
        weights = _weights(model, request.profile.dtype, actor)
        kv_dtype = choose_kv(
            model, request.profile.kv_dtype, weights, device=room.device, kind=kind
        )
        plan = plan_memory(
            model,
            request.profile,
            weights=weights,
            kv_dtype=kv_dtype,
            device=room.device,
            kind=kind,
            free_bytes=room.free_bytes,
            default_kv_bytes=CPU_KV_BYTES if kind == "cpu" else None,
            block_tokens=block_tokens_for(kind, actor.attention_backend),
            threads=self._threads,
        )
        return room.device, plan

    def expected_bytes(self, model: PreparedModel, named: Dtype | None) -> int | None:
        """Return what the weights of a model would take on the first device that can have them.

        `named` is the dtype of the model's profile. None: no device has such weights.
        """
        for actor in self._actors.values():
            with contextlib.suppress(InvalidRequest):
                weights = _weights(model, named, actor)
                return weights_bytes(model, weights.dtype, actor.info.kind)
        return None

    def state_of(self, device: DeviceName) -> DeviceState:
        return self.get(device).state

    def send(self, device: DeviceName, command: protocol.DataCommand) -> None:
        """Send work to a device; see `DeviceActor.send_data`."""
        self.get(device).send_data(command)

    def is_busy(self, device: DeviceName, model_id: ModelId) -> bool:
        """Tell whether a model has requests on a device."""
        return any(self.get(device).counts(model_id))

    def declare_hung(self, device: DeviceName, reason: str) -> None:
        """Kill a device's actor and start another."""
        self.get(device).declare_hung(reason)

    def _room(self, actor: DeviceActor, reserved: Collection[Reservation]) -> DeviceRoom:
        sample = self._devices.measure(actor.info)
        here = [entry for entry in reserved if entry.device == actor.info.id]
        return DeviceRoom(
            device=actor.info.id,
            usable=actor.state in ("ready", "starting"),
            total_bytes=sample.total_bytes,
            measured_free_bytes=sample.free_bytes,
            reserved_bytes=sum(entry.size_bytes for entry in here),
            arriving_bytes=sum(entry.size_bytes for entry in here if entry.arriving),
        )


def _weights(model: PreparedModel, named: Dtype | None, actor: DeviceActor) -> WeightChoice:
    return choose_weights(
        model,
        named,
        device=actor.info.id,
        kind=actor.info.kind,
        has_kernels=actor.has_kernels,
        computes_bfloat16=computes_bfloat16(actor.info),
    )
