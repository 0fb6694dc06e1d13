"""The actor's books of requests and streams."""

from cortex_core.ids import ModelId, RequestId
from neurond.actor.requests import Place, RequestTable

MODEL, OTHER = Place(ModelId("file:m"), "generate"), Place(ModelId("file:m"), "embed")
ONE, TWO = RequestId("one"), RequestId("two")


def test_a_request_is_forgotten_with_its_last_stream() -> None:
    table = RequestTable()
    table.add(ONE, MODEL, range(5, 7))

    table.end_stream(5)
    assert table.place_of(ONE) == MODEL
    assert table.place_of_stream(6) == MODEL
    assert table.place_of_stream(5) is None
    table.end_stream(6)

    assert table.place_of(ONE) is None


def test_a_failed_request_takes_its_streams_along() -> None:
    table = RequestTable()
    table.add(ONE, MODEL, range(2))
    table.add(TWO, OTHER, range(2, 3))
    assert table.at(MODEL) == [ONE]

    table.end_request(ONE)

    assert table.place_of_stream(0) is None
    assert table.place_of_stream(2) == OTHER
    assert table.at(MODEL) == []


def test_a_cancel_that_overtakes_its_request_is_kept_once() -> None:
    table = RequestTable()
    table.keep_cancel(ONE)

    assert table.was_cancelled(ONE)
    assert not table.was_cancelled(ONE)
    assert not table.was_cancelled(TWO)


def test_cancels_of_requests_that_never_come_do_not_pile_up() -> None:
    table = RequestTable()
    for number in range(10_000):
        table.keep_cancel(RequestId(str(number)))

    assert not table.was_cancelled(RequestId("0"))
    assert table.was_cancelled(RequestId("9999"))
