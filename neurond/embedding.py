"""From an embedding request to its events: token ids, limits, vectors.

As `neurond.generation` does for text. One `Embedding` serves the daemon's event loop.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple, Protocol

from cortex_core.canonical import (
    Completed,
    Ping,
    TextPrompt,
    Usage,
)
from cortex_core.canonical_embedding import Embedded, EmbedEvent, EmbedRequest
from cortex_core.capabilities import require_ability
from cortex_core.embedding_limits import check_lengths
from cortex_core.errors import InvalidRequest
from cortex_core.ids import ModelId
from cortex_core.neuron_api import NodeModel
from neurond.generation import PING_INTERVAL_S
from neurond.guarded_events import begun, pings_until
from neurond.metrics import GenerationMetrics
from neurond.stream_items import Admitted, Vector
from neurond.supervisor.jobs import EmbedJob
from neurond.supervisor.streams import TokenStream
from neurond.text.model_text import SMALL_PROMPT_CHARS, ModelText
from neurond.text.pool import TextPool
from neurond.text.texts import ModelTexts

PARAM: Final = "input"
"""What the inputs are called in errors: the dialect's word, which is the only one for them."""


class EmbeddingEngine(Protocol):
    """What embedding needs of the supervisor."""

    def require_ready(self, model_id: ModelId) -> NodeModel: ...

    def submit(self, job: EmbedJob) -> TokenStream: ...


class _Prepared(NamedTuple):
    job: EmbedJob
    num_tokens: int


class Embedding:
    """Makes vectors. Every wait ends with the caller's interest in it.

    Args:
        engine: takes token ids, gives vectors.
        texts: the models' tokenizers.
        pool: for inputs that take longer than a millisecond to tokenise.
        metrics: counts requests and measures their times.
        ping_interval_s: longest silence of a stream.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        texts: ModelTexts,
        pool: TextPool,
        metrics: GenerationMetrics,
        *,
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        self._engine = engine
        self._texts = texts
        self._pool = pool
        self._metrics = metrics
        self._ping_interval_s = ping_interval_s

    async def start(self, request: EmbedRequest) -> AsyncGenerator[list[EmbedEvent], None]:
        """Return the request's events, all together that are there at a time.

        They end with `Completed` or `Failed` and raise nothing. Something is said at least once
        per `ping_interval_s`. Closing them cancels the request within one step of the engine.

        Raises:
            CortexError: the request was refused; the whole answer can still be this error.
        """
        return await begun(self._batches(request), request.request_id, work="embedding")

    async def _batches(self, request: EmbedRequest) -> AsyncGenerator[list[EmbedEvent], None]:
        preparing = asyncio.create_task(self._prepare(request))
        try:
            with self._metrics.request(request.model, time.monotonic) as meter:
                async for ping in pings_until(preparing, self._ping_interval_s):
                    yield [ping]
                prepared = preparing.result()
                meter.prompt(prepared.num_tokens)
                stream = self._engine.submit(prepared.job)
                try:
                    while not stream.ended:
                        items = await stream.take(self._ping_interval_s)
                        if any(isinstance(item, Admitted) for item in items):
                            meter.cached(0)
                        vectors = [item for item in items if isinstance(item, Vector)]
                        yield [Embedded(v.input_index, v.vector) for v in vectors] or [Ping()]
                finally:
                    stream.cancel()
                meter.completed(0)
                yield [Completed(Usage(prepared.num_tokens, 0))]
        finally:
            preparing.cancel()

    async def _prepare(self, request: EmbedRequest) -> _Prepared:
        model = self._engine.require_ready(request.model)
        require_ability(request.model, model.capabilities, "embeddings")
        sizes = model.embedding
        if sizes is None:
            raise InvalidRequest(
                f"cannot embed with {request.model}: it gives no vectors as it is served here",
                param="model",
            )
        if request.dimensions is not None and request.dimensions > sizes.dimensions:
            raise InvalidRequest(
                f"cannot embed: dimensions is {request.dimensions}, vectors of {request.model} "
                f"have {sizes.dimensions}",
                param="dimensions",
            )
        ids = await self._token_ids(await self._texts.get(request.model), request)
        lengths = [len(each) for each in ids]
        check_lengths(lengths, sizes.max_input_tokens, param=PARAM)
        job = EmbedJob(
            request_id=request.request_id,
            model_id=request.model,
            inputs=ids,
            dimensions=request.dimensions,
            principal=request.principal,
        )
        return _Prepared(job, sum(lengths))

    async def _token_ids(self, text: ModelText, request: EmbedRequest) -> list[list[int]]:
        def encode() -> list[list[int]]:
            return [
                text.input_ids(each, param=f"{PARAM}[{index}]")
                for index, each in enumerate(request.inputs)
            ]

        chars = sum(len(each.text) for each in request.inputs if isinstance(each, TextPrompt))
        return encode() if chars <= SMALL_PROMPT_CHARS else await self._pool.run(encode)
