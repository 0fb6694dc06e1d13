"""However far a stream came, what it is made of is closed with it, once."""

from collections.abc import AsyncGenerator

import pytest

from cortex_core.canonical import Event, Failed, Ping
from cortex_core.errors import DeviceFailed
from cortex_core.ids import RequestId
from neurond.guarded_events import begun, one_by_one

REQUEST = RequestId("r1")


class Source:
    """Batches of pings; `error` comes after the first."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self._error = error

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        try:
            yield [Ping(), Ping()]
            if self._error is not None:
                raise self._error
            yield [Ping()]
        finally:
            self.closed += 1


async def test_a_stream_that_nobody_reads_is_closed_with_its_source() -> None:
    source = Source()
    events = one_by_one(await begun(source.batches(), REQUEST, work="generation"))

    await events.aclose()

    assert source.closed == 1


async def test_a_stream_left_half_way_is_closed_with_its_source() -> None:
    source = Source()
    events = one_by_one(await begun(source.batches(), REQUEST, work="generation"))
    assert await anext(events) == Ping()

    await events.aclose()

    assert source.closed == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(DeviceFailed("cannot go on: it died"), "device_failed"), (KeyError("x"), "internal_error")],
)
async def test_an_error_behind_the_first_events_is_the_last_one(
    error: Exception, code: str
) -> None:
    source = Source(error)

    events = [one async for one in one_by_one(await begun(source.batches(), REQUEST, work="test"))]

    assert events[:2] == [Ping(), Ping()]
    assert isinstance(events[2], Failed)
    assert events[2].error.code == code
    assert len(events) == 3
    assert source.closed == 1


async def test_an_error_before_the_first_events_is_raised() -> None:
    async def refused() -> AsyncGenerator[list[Event], None]:
        raise DeviceFailed("cannot begin: there is none")
        yield []

    with pytest.raises(DeviceFailed, match="there is none"):
        await begun(refused(), REQUEST, work="generation")
