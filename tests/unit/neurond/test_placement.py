"""Which device a model goes to."""

import pytest

from cortex_core.errors import InvalidRequest, OutOfMemory
from cortex_core.ids import DeviceName, ModelId
from neurond.placement import DeviceRoom, choose_device

MODEL = ModelId("file:m")
SMALL, LARGE = DeviceName("cuda-0"), DeviceName("cuda-1")


def room(
    device: DeviceName,
    *,
    total: int = 100,
    free: int = 100,
    reserved: int = 0,
    arriving: int = 0,
    usable: bool = True,
) -> DeviceRoom:
    return DeviceRoom(device, usable, total, free, reserved, arriving)


def test_the_device_with_most_free_memory_is_chosen() -> None:
    rooms = [room(SMALL, free=40), room(LARGE, free=60)]

    assert choose_device(MODEL, [], rooms).device == LARGE


def test_a_wanted_device_is_chosen_however_full() -> None:
    rooms = [room(SMALL, free=40), room(LARGE, free=60)]

    assert choose_device(MODEL, [SMALL], rooms).device == SMALL


def test_a_failing_device_comes_last() -> None:
    rooms = [room(SMALL, free=1), room(LARGE, free=60, usable=False)]

    assert choose_device(MODEL, [], rooms).device == SMALL
    assert choose_device(MODEL, [LARGE], rooms).device == LARGE


def test_memory_that_is_promised_is_not_free() -> None:
    # A model that is loading has not been measured yet.
    assert room(SMALL, free=90, reserved=50, arriving=50).free_bytes == 40
    # A cache that was reserved and not touched is not measured either.
    assert room(SMALL, free=90, reserved=70).free_bytes == 30
    # Neighbours that we know nothing of are measured.
    assert room(SMALL, free=20, reserved=10).free_bytes == 20
    assert room(SMALL, free=20, reserved=10, arriving=30).free_bytes == 0


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="'cuda-9': this node has cuda-0"):
        choose_device(MODEL, [DeviceName("cuda-9")], [room(SMALL)])
    with pytest.raises(OutOfMemory):
        choose_device(MODEL, [], [])
