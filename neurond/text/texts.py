"""The texts of the models in use: opened once, from disk, also for models that are not loaded."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cortex_core.errors import ModelNotFound
from cortex_core.ids import ModelId
from cortex_core.neuron_api import ModelProfile, ReasoningParserName, ToolParserName
from neurond.sources.prepared import PreparedModel
from neurond.text.model_text import ModelText
from neurond.text.pool import TextPool

MAX_OPEN: Final = 16
"""Tokenizers kept in memory; a large one takes some 100 MB."""


class ModelShelf(Protocol):
    """Where prepared models lie."""

    def find(self, model_id: ModelId) -> PreparedModel | None: ...

    def folder(self, model_id: ModelId) -> Path: ...


class _Key(NamedTuple):
    model_id: ModelId
    weights_hash: str
    template: str | None
    tool_parser: ToolParserName | None
    reasoning_parser: ReasoningParserName | None


class ModelTexts:
    """Opens each model's text once, off the loop; keeps the `MAX_OPEN` used last.

    Args:
        shelf: the models on disk.
        profile_of: the profile that holds for a model; its template goes before the model's own.
        pool: opens files.
    """

    def __init__(
        self,
        shelf: ModelShelf,
        profile_of: Callable[[ModelId], ModelProfile],
        pool: TextPool,
        *,
        max_open: int = MAX_OPEN,
    ) -> None:
        self._shelf = shelf
        self._profile_of = profile_of
        self._pool = pool
        self._max_open = max_open
        self._open: OrderedDict[_Key, ModelText] = OrderedDict()
        self._opening: dict[_Key, asyncio.Task[ModelText]] = {}
        self._reading = asyncio.Lock()

    async def get(self, model_id: ModelId, template: str | None = None) -> ModelText:
        """Return a model's text. `template` goes before what holds for the model.

        Raises:
            ModelNotFound: the model is not on disk.
            ModelLoadFailed: its files cannot be read.
            InvalidRequest: its chat template is not valid.
        """
        prepared = self._shelf.find(model_id)
        if prepared is None:
            raise ModelNotFound(
                f"cannot find model {model_id!r} on this node; pull or load it first",
                param="model",
            )
        key = self._key(prepared, template)
        known = self._open.get(key)
        if known is not None:
            self._open.move_to_end(key)
            return known
        return await asyncio.shield(self._begin(key, prepared))

    def open_ahead(self, model_id: ModelId) -> None:
        """Begin to open a model's text if it is on disk; what fails then, fails again in `get`."""
        prepared = self._shelf.find(model_id)
        if prepared is not None and self._key(prepared) not in self._open:
            self._begin(self._key(prepared), prepared)

    def opened(self, model_id: ModelId) -> ModelText | None:
        """Return a model's text if it is open."""
        prepared = self._shelf.find(model_id)
        return None if prepared is None else self._open.get(self._key(prepared))

    def _key(self, prepared: PreparedModel, template: str | None = None) -> _Key:
        model_id = prepared.model_id
        profile = self._profile_of(model_id)
        return _Key(
            model_id,
            prepared.weights_hash,
            template or profile.chat_template,
            profile.tool_parser,
            profile.reasoning_parser,
        )

    def _begin(self, key: _Key, prepared: PreparedModel) -> "asyncio.Task[ModelText]":
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._read(key, prepared))
            task.add_done_callback(lambda done: self._opened(key, done))
        return task

    async def _read(self, key: _Key, prepared: PreparedModel) -> ModelText:
        folder = self._shelf.folder(key.model_id)
        # One at a time: see `ModelTokenizer.read`.
        async with self._reading:
            # Another template costs no second tokenizer.
            others = (text for other, text in self._open.items() if other[:2] == key[:2])
            tokenizer = next((text.tokenizer for text in others), None)
            return await self._pool.run(
                lambda: ModelText.read(
                    folder,
                    prepared,
                    key.template,
                    tokenizer,
                    tool_parser=key.tool_parser,
                    reasoning_parser=key.reasoning_parser,
                )
            )

    def _opened(self, key: _Key, task: "asyncio.Task[ModelText]") -> None:
        del self._opening[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._open[key] = task.result()
        while len(self._open) > self._max_open:
            self._open.popitem(last=False)
