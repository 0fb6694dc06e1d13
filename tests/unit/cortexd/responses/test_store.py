"""The store as a worker's loop asks for it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from cortex_core.canonical import JsonObject
from cortex_core.errors import (
    InternalError,
    NotFound,
    PreviousResponseNotFound,
    RequestTooLarge,
)
from cortexd.responses import store as responses_store
from cortexd.responses.database import StoredResponse
from cortexd.responses.store import DATABASE_FILE, ResponseStore, StoreSettings

TTL_S = 100.0
REQUEST = "0123456789abcdef0123456"


class Clock:
    now = 1000.0

    def __init__(self) -> None:
        self.wait: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        self.wait()
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[ResponseStore]:
    made = ResponseStore(StoreSettings(tmp_path / "state", TTL_S, 10_000), clock=clock)
    yield made
    made.close()


def message(number: int, part: str) -> JsonObject:
    return {"id": f"msg_{REQUEST}{number}_{part}", "role": "user", "content": part}


def response_id(number: int) -> str:
    return f"resp_{REQUEST}{number}"


def row(number: int, previous: int | None = None, size: int = 0) -> StoredResponse:
    return StoredResponse(
        response_id(number),
        None if previous is None else response_id(previous),
        msgspec.json.encode([message(number, "i0")]),
        msgspec.json.encode({"output": [message(number, "0")], "filling": "x" * size}),
    )


def test_nobody_who_asks_leaves_no_file(store: ResponseStore, tmp_path: Path) -> None:
    assert asyncio.run(store.items(())) == {}
    assert list(tmp_path.iterdir()) == []


async def test_a_conversation_is_inputs_and_outputs_in_order(store: ResponseStore) -> None:
    for each in (row(1), row(2, 1), row(3, 2)):
        await store.put(each)
    said = [message(number, part) for number in (1, 2, 3) for part in ("i0", "0")]
    assert await store.conversation(response_id(3)) == said
    assert await store.input_items(response_id(3)) == said[:-1]
    assert await store.input_items(response_id(1)) == said[:1]
    assert await store.get(response_id(2)) == row(2, 1)


async def test_a_conversation_lives_as_long_as_its_last_response(
    store: ResponseStore, clock: Clock
) -> None:
    await store.put(row(1))
    clock.now += TTL_S - 1
    await store.put(row(2, 1))
    clock.now += TTL_S - 1
    assert len(await store.conversation(response_id(2))) == 4
    clock.now += 1
    with pytest.raises(PreviousResponseNotFound, match="send the conversation as input"):
        await store.conversation(response_id(2))
    for ask in (store.get, store.delete, store.input_items):
        with pytest.raises(NotFound):
            await ask(response_id(1))


async def test_items_are_found_by_their_ids(store: ResponseStore) -> None:
    await store.put(row(1))
    await store.put(row(2))
    wanted = [message(1, "i0"), message(2, "0")]
    ids = [item["id"] for item in wanted]
    others = ["msg_1", message(1, "9")["id"], message(5, "0")["id"]]
    assert await store.items([*ids, *others]) == {item["id"]: item for item in wanted}


async def test_items_of_responses_that_are_too_large_together_are_refused(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [message(number, "0")["id"] for number in (1, 2)]
    for number in (1, 2):
        await store.put(row(number, size=1000))
    monkeypatch.setattr(responses_store, "MAX_CONVERSATION_BYTES", row(1, size=1000).size_bytes)
    assert len(await store.items([*ids[:1], message(1, "i0")["id"]])) == 2
    with pytest.raises(RequestTooLarge, match="cannot read the referenced items"):
        await store.items(ids)


async def test_what_is_too_large_is_not_kept(store: ResponseStore) -> None:
    await store.put(row(1, size=10_000))
    with pytest.raises(NotFound):
        await store.get(response_id(1))


async def test_what_cannot_be_kept_in_time_is_not_waited_for(
    store: ResponseStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(responses_store, "PUT_TIMEOUT_S", 0.01)
    written = threading.Event()
    clock.wait = written.wait
    try:
        await store.put(row(1))
        (record,) = caplog.records
        assert record.message == "response not kept"
        assert "not written in 0.01 s" in repr(vars(record))
    finally:
        written.set()


async def test_a_deleted_response_breaks_what_went_on_from_it(store: ResponseStore) -> None:
    await store.put(row(1))
    await store.put(row(2, 1))
    await store.delete(response_id(1))
    assert await store.get(response_id(2)) == row(2, 1)
    with pytest.raises(PreviousResponseNotFound):
        await store.conversation(response_id(2))
    with pytest.raises(NotFound):
        await store.input_items(response_id(2))


async def test_a_file_that_cannot_be_used_fails_who_asks_and_not_who_answers(
    store: ResponseStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "state" / DATABASE_FILE).mkdir(parents=True)
    await store.put(row(1))
    assert [record.message for record in caplog.records] == ["response not kept"]
    with pytest.raises(InternalError, match="Is a directory"):
        await store.get(response_id(1))
