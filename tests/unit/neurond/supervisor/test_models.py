"""Loads that go wrong in ways nobody foresaw: whoever waits is told, and the state is right."""

from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest

from cortex_core.errors import InternalError
from cortex_core.ids import DeviceName, ModelId
from cortex_core.model_folder import MANIFEST
from cortex_core.neuron_api import DeviceState, LoadProgress, LoadRequest
from neurond import protocol
from neurond.memory_plan import MemoryPlan
from neurond.sources.prepared import PreparedModel
from neurond.supervisor.model_record import Reservation
from neurond.supervisor.models import Models
from neurond.supervisor.ports import ProgressCallback
from neurond.supervisor.settings import SupervisorSettings
from tests.fakes.tokenizers_made import byte_level, prepared

DEVICE = DeviceName("cpu")
MODEL = ModelId("file:/made")
PLAN = MemoryPlan(
    dtype="float32", context_tokens=64, max_sequences=1, weights_bytes=1, kv_cache_bytes=1
)


class Library:
    """Has one model on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model = prepared(byte_level())
        (folder / MANIFEST).write_bytes(msgspec.json.encode(self._model))

    async def ensure(self, model_id: ModelId, on_progress: ProgressCallback) -> Path:
        return self._folder

    def prepared(self) -> list[PreparedModel]:
        return [self._model]


class BrokenDevices:
    """One device, which fails at `place` or at `send` in a way that has no type of its own."""

    def __init__(self, *, at: str, state: DeviceState = "ready") -> None:
        self._at = at
        self._state: DeviceState = state

    def place(
        self, request: LoadRequest, model: PreparedModel, reserved: Collection[Reservation]
    ) -> tuple[DeviceName, MemoryPlan]:
        if self._at == "place":
            raise OverflowError("too large")
        return DEVICE, PLAN

    def state_of(self, device: DeviceName) -> DeviceState:
        return self._state

    def send(self, device: DeviceName, command: protocol.DataCommand) -> None:
        raise OverflowError("too large")

    def is_busy(self, device: DeviceName, model_id: ModelId) -> bool:
        return False

    def declare_hung(self, device: DeviceName, reason: str) -> None:
        raise AssertionError("the actor is healthy")


def models(folder: Path, devices: BrokenDevices) -> Models:
    return Models(
        Library(folder), devices, SupervisorSettings(runtime_dir=folder), on_change=lambda: None
    )


@pytest.mark.parametrize("at", ["place", "send"])
async def test_a_load_that_fails_in_any_way_fails_for_whoever_waits(
    tmp_path: Path, at: str
) -> None:
    under_test = models(tmp_path, BrokenDevices(at=at))
    with pytest.raises(InternalError, match="OverflowError: too large"):
        await under_test.load(LoadRequest(MODEL), lambda progress: None)
    model = under_test.find(MODEL)
    assert model is not None
    assert model.lifecycle.state == "failed"


async def test_a_load_that_waited_for_its_device_fails_the_same_way(tmp_path: Path) -> None:
    under_test = models(tmp_path, BrokenDevices(at="send", state="starting"))

    def ready_once_placed(progress: LoadProgress) -> None:
        if progress.stage == "loading":
            under_test.device_ready(DEVICE)

    with pytest.raises(InternalError, match="OverflowError: too large"):
        await under_test.load(LoadRequest(MODEL), ready_once_placed)
