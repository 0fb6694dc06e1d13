"""Kept responses, as the event loop of an HTTP worker asks for them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from cortex_core.canonical import JsonObject
from cortex_core.dialects.openai_responses_items import response_of_item
from cortex_core.errors import (
    InternalError,
    NotFound,
    PreviousResponseNotFound,
    RequestTooLarge,
)
from cortex_core.logs import kv
from cortex_core.sampling_limits import MAX_SHOWN_CHARS
from cortexd.responses.database import (
    BUSY_TIMEOUT_S,
    MAX_CONVERSATION_BYTES,
    ResponseDatabase,
    StoredResponse,
)
from cortexd.responses.retention import Retention

log = logging.getLogger(__name__)

DATABASE_FILE: Final = "responses.db"
PUT_TIMEOUT_S: Final = BUSY_TIMEOUT_S + 2.5
"""How long a client waits for its last event while its response is kept: for another worker's
write, and for what this one's thread has yet to do."""

T = TypeVar("T")


class StoreSettings(msgspec.Struct, frozen=True):
    """Where responses are kept, and how many; from `[responses]` of `cortex.toml`."""

    folder: Path
    ttl_s: float
    max_bytes: int


class ResponseStore:
    """Runs everything that blocks in one thread, which owns the database.

    The file is opened when it is first asked for: a gateway that nobody asks for responses leaves
    none. A call that is cancelled may still take effect.
    """

    def __init__(self, settings: StoreSettings, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since 1970, in any thread."""
        self._path = settings.folder / DATABASE_FILE
        self._retention = Retention(ttl_s=settings.ttl_s, max_bytes=settings.max_bytes)
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="responses")
        self._database: ResponseDatabase | None = None

    async def put(self, row: StoredResponse) -> None:
        """Keep a response, within `PUT_TIMEOUT_S`.

        That it cannot be kept is logged: its client has the answer.
        """
        if not self._retention.keeps(row.size_bytes):
            told = kv(response=row.id, size_bytes=row.size_bytes)
            log.debug("response not kept: too large", extra=told)
            return
        try:
            async with asyncio.timeout(PUT_TIMEOUT_S):
                await self._in_thread(lambda: self._open().put(row, self._clock()))
        except TimeoutError:
            told = kv(response=row.id, cause=f"not written in {PUT_TIMEOUT_S:g} s")
            log.error("response not kept", extra=told)
        except InternalError as error:
            log.exception("response not kept", extra=kv(response=row.id, cause=error.message))

    async def get(self, response_id: str) -> StoredResponse:
        """Return what is kept under `response_id`.

        Raises:
            NotFound: nothing is, or no longer.
            InternalError: the file cannot be read.
        """
        found = await self._in_thread(lambda: self._open().get(response_id, self._clock()))
        if found is None:
            raise _not_found(response_id)
        return found

    async def conversation(self, response_id: str) -> list[JsonObject]:
        """Return the items of a response and of those before it, inputs and outputs, in order.

        Raises:
            PreviousResponseNotFound: it is not kept, or one before it no longer.
            InternalError: the file cannot be read.
        """
        items = await self._in_thread(lambda: self._conversation(response_id))
        if items is None:
            raise PreviousResponseNotFound(
                f"cannot go on from response {_shown(response_id)}: it, or one before it, is not "
                "stored here; send the conversation as input",
                param="previous_response_id",
            )
        return items

    async def input_items(self, response_id: str) -> list[JsonObject]:
        """Return all that a response answers: the conversation before it, and its own input.

        Raises:
            NotFound: it is not kept, or one before it no longer.
            InternalError: the file cannot be read.
        """
        items = await self._in_thread(lambda: self._conversation(response_id, answered=False))
        if items is None:
            raise _not_found(response_id)
        return items

    async def items(self, item_ids: Sequence[str]) -> dict[str, JsonObject]:
        """Return those of the items that are kept, by id.

        Raises:
            InternalError: the file cannot be read.
            RequestTooLarge: they stand in responses that together have more than
                `MAX_CONVERSATION_BYTES`.
        """
        if not item_ids:
            return {}
        return await self._in_thread(lambda: self._items(item_ids))

    async def delete(self, response_id: str) -> None:
        """Forget a response.

        Raises:
            NotFound: it is not kept.
            InternalError: the file cannot be written.
        """
        if not await self._in_thread(lambda: self._open().delete(response_id, self._clock())):
            raise _not_found(response_id)

    def close(self) -> None:
        """Wait for what runs and close the file."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _open(self) -> ResponseDatabase:
        if self._database is None:
            self._database = ResponseDatabase(self._path, self._retention)
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()

    def _conversation(self, response_id: str, *, answered: bool = True) -> list[JsonObject] | None:
        rows = self._open().conversation(response_id, self._clock())
        if rows is None:
            return None
        items: list[JsonObject] = []
        for row in rows:
            items += _input(row)
            if answered or row is not rows[-1]:
                items += _output(row)
        return items

    def _items(self, item_ids: Sequence[str]) -> dict[str, JsonObject]:
        found: dict[str, JsonObject] = {}
        wanted = set(item_ids)
        size_bytes = 0
        for response_id in {response_of_item(item_id) for item_id in item_ids}:
            row = self._open().get(response_id, self._clock()) if response_id else None
            if row is not None:
                size_bytes += row.size_bytes
                if size_bytes > MAX_CONVERSATION_BYTES:
                    raise RequestTooLarge(
                        "cannot read the referenced items: they stand in responses of more than "
                        f"{MAX_CONVERSATION_BYTES} bytes",
                        param="input",
                    )
                kept = (*_input(row), *_output(row))
                found |= {item["id"]: item for item in kept if item["id"] in wanted}
        return found


def _input(row: StoredResponse) -> list[JsonObject]:
    return msgspec.json.decode(row.input, type=list[dict[str, Any]])


def _output(row: StoredResponse) -> list[JsonObject]:
    return msgspec.json.decode(row.response, type=_Response).output


class _Response(msgspec.Struct):
    output: list[JsonObject]


def _not_found(response_id: str) -> NotFound:
    return NotFound(
        f"cannot find response {_shown(response_id)}: it is not stored here, or no longer",
        param="response_id",
    )


def _shown(response_id: str) -> str:
    """Return a client's word for a response, cut where it can be none of ours."""
    return repr(response_id[:MAX_SHOWN_CHARS])
