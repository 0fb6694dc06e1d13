"""Threads of an actor refer to nothing of what they have done.

So the memory of an unloaded model is free before the next one is loaded.
"""

import gc
import select
import weakref
from array import array
from collections.abc import Callable

from cortex_core.canonical import SamplingParams
from cortex_core.ids import ModelId, RequestId
from neurond.actor.backend import ServedModel
from neurond.actor.formats import FormatQueue
from neurond.actor.loader import Loader
from neurond.engine.engine import EngineRequest
from neurond.protocol import Configure, LoadModel, ModelLoaded

LONGEST_S = 30.0


class Weights:
    """Stands for what a model has in memory, as an embedder and as a compiler of formats."""

    dimensions = 1

    def __init__(self, on_compile: Callable[[], None] = lambda: None) -> None:
        self._on_compile = on_compile

    def embed(self, inputs):
        raise NotImplementedError

    def compile(self, response_format, *, ends, replayed):
        self._on_compile()


class Backend:
    """Loads `Weights`, and looks at each load whether those of the one before are gone."""

    def __init__(self) -> None:
        self._last: weakref.ref[Weights] | None = None
        self.were_there: list[bool] = []

    def open(self, configure: Configure):
        raise NotImplementedError

    def load(self, command: LoadModel, on_progress: Callable[[float], None]) -> ServedModel:
        gc.collect()
        self.were_there.append(self._last is not None and self._last() is not None)
        weights = Weights()
        self._last = weakref.ref(weights)
        return ServedModel(_loaded(command), None, lambda: None, None, weights)

    def describe(self, error: Exception):
        raise error

    def is_poisoned(self, error: Exception) -> bool:
        return False


def test_what_was_loaded_is_the_loops_alone() -> None:
    backend = Backend()
    loader = Loader(backend)

    for name in ("first", "second"):
        loader.load(_load(name))
        _wait(loader.wakeup_fd)
        [(_, served)] = loader.take()
        assert isinstance(served, ServedModel)
        del served, _

    assert backend.were_there == [False, False]


def test_a_compiled_format_leaves_nothing_behind() -> None:
    formats = FormatQueue()
    first = Weights()
    ref = weakref.ref(first)
    were_there: list[bool] = []

    def look() -> None:
        gc.collect()
        were_there.append(ref() is not None)

    formats.put(_request("first"), b"{}", first)
    del first
    _wait(formats.wakeup_fd)
    formats.take()
    formats.put(_request("second"), b"{}", Weights(look))
    _wait(formats.wakeup_fd)
    formats.take()

    assert were_there == [False]


def _wait(fd: int) -> None:
    readable, _, _ = select.select([fd], [], [], LONGEST_S)
    assert readable


def _load(name: str) -> LoadModel:
    return LoadModel(
        model_id=ModelId(name),
        model_dir=name,
        dtype="float32",
        context_tokens=1,
        max_sequences=1,
        kv_cache_bytes=1,
        block_tokens=1,
    )


def _loaded(command: LoadModel) -> ModelLoaded:
    return ModelLoaded(
        model_id=command.model_id,
        weights_id=command.model_dir,
        weights_bytes=1,
        kv_cache_bytes=1,
        num_blocks=1,
        context_tokens=1,
        dtype=command.dtype,
        kernels="torch",
    )


def _request(name: str) -> EngineRequest:
    return EngineRequest(
        request_id=RequestId(name),
        first_stream=0,
        prompt_token_ids=array("i", [1]),
        sampling=SamplingParams(),
        max_tokens=1,
        seed=0,
    )
