"""Streams that close what they are made of, also when nobody has begun them."""

from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnedEvents(AsyncGenerator[T, None]):
    """`items`, made of `sources`, which are closed with it however far it came.

    A generator that was never begun has nothing to leave: its close runs no `finally`, so what it
    was given would live on until garbage is collected. That is the fate of a stream whose client
    leaves before the first item is asked for.
    """

    def __init__(self, items: AsyncGenerator[T, None], *sources: AsyncGenerator[Any, None]) -> None:
        self._items = items
        self._sources = sources

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._items.__anext__()

    async def asend(self, value: None) -> T:
        return await self._items.asend(value)

    async def athrow(self, *error: Any) -> T:
        return await self._items.athrow(*error)

    async def aclose(self) -> None:
        """Close the items, then the sources. Idempotent."""
        try:
            await self._items.aclose()
        finally:
            for source in self._sources:
                await source.aclose()
