"""From a request to its events: template, token ids, limits, engine, text.

The only place that knows all of them. One `Generation` serves the daemon's event loop.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final, Protocol

from cortex_core.canonical import (
    ChatPrompt,
    ContinueFrom,
    CountTokensRequest,
    Event,
    GenerateRequest,
    Ping,
)
from cortex_core.capabilities import require_ability
from cortex_core.errors import ContextLengthExceeded
from cortex_core.ids import ModelId
from cortex_core.neuron_api import NodeModel
from neurond.answer import Answer, PreparedRequest
from neurond.guarded_events import begun, one_by_one, pings_until
from neurond.images.reader import ImageReader
from neurond.metrics import GenerationMetrics
from neurond.prompt_tokens import PromptReader, PromptTokens
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.streams import TokenStream
from neurond.text.answer_plan import AnswerPlan, answer_plan, may_hold_calls
from neurond.text.format_checker import FormatChecker
from neurond.text.format_trials import FormatTrials
from neurond.text.model_text import ModelText, param_of
from neurond.text.output import RequestOutput
from neurond.text.parsing.families import Parsers
from neurond.text.pool import TextPool
from neurond.text.prompt_scores import engine_sampling
from neurond.text.replay import check_continuation, replay_output
from neurond.text.texts import ModelTexts
from neurond.text.truncation import cut_ids, most_tokens
from neurond.text.vocabulary import check_sampled_ids

PING_INTERVAL_S: Final = 0.5
"""No stream of events is silent for longer, so that no client waits a second for bytes: clients
give up and try again while the first try still runs."""
SEED_BITS: Final = 63
SMALL_REPLAY_TOKENS: Final = 64
"""So many are fed again within about a millisecond."""


class Engine(Protocol):
    """What generation needs of the supervisor."""

    def require_ready(self, model_id: ModelId) -> NodeModel: ...

    def submit(self, job: EngineJob) -> TokenStream: ...


class Generation:
    """Generates. Every wait ends with the caller's interest in it.

    Args:
        engine: takes token ids, gives tokens.
        texts: the models' tokenizers and templates.
        pool: for text work that takes longer than a millisecond.
        images: reads those of prompts.
        formats: tries out what answers are to be held to.
        metrics: counts requests and measures their times.
        ping_interval_s: longest silence of a stream.
        new_seed: makes the seed of a request that has none.
    """

    def __init__(
        self,
        engine: Engine,
        texts: ModelTexts,
        pool: TextPool,
        images: ImageReader,
        formats: FormatChecker,
        metrics: GenerationMetrics,
        *,
        ping_interval_s: float = PING_INTERVAL_S,
        new_seed: Callable[[], int] = lambda: secrets.randbits(SEED_BITS),
    ) -> None:
        self._engine = engine
        self._texts = texts
        self._pool = pool
        self._images = images
        self._prompts = PromptReader(pool, images)
        self._formats = FormatTrials(formats, pool)
        self._metrics = metrics
        self._ping_interval_s = ping_interval_s
        self._new_seed = new_seed

    def open_ahead(self, model_id: ModelId) -> None:
        """See `ModelTexts.open_ahead`; gets ready for images too, where the model takes them."""
        self._texts.open_ahead(model_id)
        if self._texts.takes_images(model_id):
            self._images.warm()

    def parsers_of(self, model_id: ModelId) -> Parsers | None:
        """Return what takes a model's answers apart; None while its text is not open."""
        text = self._texts.opened(model_id)
        return text.answers.parsers if text is not None and text.answers is not None else None

    async def start(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Return the request's events, the first of which is already known.

        The stream ends with `Completed` or `Failed` and raises nothing. It says something at least
        once per `ping_interval_s`. Closing it cancels the request within one engine step.

        Raises:
            CortexError: the request was refused before there was anything to say; the whole
                answer can still be this error.
        """
        return one_by_one(await self.start_batches(request))

    async def start_batches(self, request: GenerateRequest) -> AsyncGenerator[list[Event], None]:
        """Return the request's events as `start` does, all together that are there at a time.

        Raises:
            CortexError: as `start`.
        """
        return await begun(self._batches(request), request.request_id, work="generation")

    async def count_tokens(self, model_id: ModelId, request: CountTokensRequest) -> int:
        """Return how many tokens a prompt has; the model need not be loaded.

        Raises:
            CortexError: as for a request with this prompt.
        """
        text = await self._texts.get(model_id, request.chat_template)
        prompt = await self._prompts.tokens(text, request.prompt)
        prompt.close()
        return len(prompt.ids)

    async def _batches(self, request: GenerateRequest) -> AsyncGenerator[list[Event], None]:
        preparing = asyncio.create_task(self._prepare(request))
        try:
            with self._metrics.request(request.model, time.monotonic) as meter:
                async for ping in pings_until(preparing, self._ping_interval_s):
                    yield [ping]
                prepared = preparing.result()
                meter.prompt(len(prepared.prompt.ids))
                answer = Answer(request, prepared, meter, self._ping_interval_s)
                # Between the engine's stream and what is written stand as few generators as can
                # be: every token meets each, and cold (docs/adr/0032-a-bell-announces-tokens.md).
                if prepared.job is None:
                    yield answer.admitted(0)
                else:
                    stream = self._engine.submit(prepared.job)
                    prepared.prompt.close()  # the actor has its images now
                    try:
                        while not stream.ended:
                            items = await stream.take(self._ping_interval_s)
                            events: list[Event] = answer.take(items, stream) if items else [Ping()]
                            if events:
                                yield events
                    finally:
                        stream.cancel()
                yield [answer.completed()]
        finally:
            preparing.cancel()
            preparing.add_done_callback(_give_back)

    async def _prepare(self, request: GenerateRequest) -> PreparedRequest:
        model = self._engine.require_ready(request.model)
        require_ability(request.model, model.capabilities, "completions")
        text = await self._texts.get(request.model)
        check_sampled_ids(request.sampling, text.prepared.vocab_size)
        going_on = request.continue_from
        if going_on is None:
            prompt = await self._prompts.tokens(text, request.prompt)
        else:
            check_continuation(request, going_on, vocab_size=text.prepared.vocab_size)
            ids = list(going_on.prompt_token_ids)
            prompt = await self._prompts.given(text, request.prompt, ids)
        try:
            return await self._prepare_tokens(request, model, text, prompt)
        except BaseException:
            prompt.close()
            raise

    async def _prepare_tokens(
        self, request: GenerateRequest, model: NodeModel, text: ModelText, prompt: PromptTokens
    ) -> PreparedRequest:
        going_on = request.continue_from
        ids = prompt.ids
        replay = going_on.output_token_ids if going_on is not None else ()
        context = model.limit.context or text.prepared.context_tokens
        asked = request.prompt
        too_long = len(ids) >= context and going_on is None and not prompt.images
        if too_long and isinstance(asked, ChatPrompt) and asked.truncates:
            most = most_tokens(request.sampling, context)
            short = await self._pool.run(lambda: cut_ids(asked, context, most, text.token_ids))
            prompt = prompt if short is None else PromptTokens(short)
            ids = prompt.ids
        if len(ids) >= context:
            raise ContextLengthExceeded(
                prompt_tokens=len(ids), max_tokens=context - 1, param=param_of(request.prompt)
            )
        plan = await self._planned(request, text, ids)
        response_format = await self._formats.format_of(plan)
        parsing = plan.parsing
        if parsing is not None and response_format is None:
            parsing = parsing._replace(triggers=None)  # nothing is held
        output = RequestOutput(
            text.tokenizer.pieces,
            request.sampling,
            text.prepared.eos_token_ids,
            n=request.n,
            first_seq=going_on.next_seq if going_on else 0,
            parsing=parsing,
        )
        room = min(most_tokens(request.sampling, context), context - len(ids)) - len(replay)
        replayed = await self._replayed(output, replay, room, going_on)
        job = None
        if not output.all_finished:
            job = self._job(request, text, prompt, replay, room, response_format)
        return PreparedRequest(
            prompt,
            job,
            output,
            replayed,
            model.weights_id,
            text.tokenizer.pieces,
            speaks_at_once=parsing is None,
        )

    async def _planned(
        self, request: GenerateRequest, text: ModelText, ids: list[int]
    ) -> AnswerPlan:
        if not may_hold_calls(request):
            return answer_plan(request, text.answers, ids)
        return await self._pool.run(lambda: answer_plan(request, text.answers, ids))

    async def _replayed(
        self,
        output: RequestOutput,
        replay: tuple[int, ...],
        room: int,
        going_on: ContinueFrom | None,
    ) -> list[Event]:
        if len(replay) <= SMALL_REPLAY_TOKENS:
            return replay_output(output, replay, room, going_on)
        return await self._pool.run(lambda: replay_output(output, replay, room, going_on))

    def _job(
        self,
        request: GenerateRequest,
        text: ModelText,
        prompt: PromptTokens,
        replay: tuple[int, ...],
        max_tokens: int,
        response_format: bytes | None,
    ) -> EngineJob:
        seed = request.sampling.seed
        return EngineJob(
            request_id=request.request_id,
            model_id=request.model,
            prompt_token_ids=prompt.ids,
            replayed_token_ids=replay,
            sampling=engine_sampling(request),
            # The engine has to choose a token of each prompt that it computes; see `Answer`.
            max_tokens=max(max_tokens, 1),
            seed=self._new_seed() if seed is None else seed,
            n=request.n,
            eos_token_ids=text.prepared.eos_token_ids,
            priority=request.priority,
            principal=request.principal,
            response_format=response_format,
            images=prompt.images,
            placeholder_id=text.prepared.images.token_id if text.prepared.images else None,
        )


def _give_back(preparing: "asyncio.Task[PreparedRequest]") -> None:
    """Close what a request's preparation holds, wherever it was left."""
    if not preparing.cancelled() and preparing.exception() is None:
        preparing.result().prompt.close()
