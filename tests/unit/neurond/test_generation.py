"""From requests to events over an engine that follows a script."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    ContinueFrom,
    CountTokensRequest,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    MediaPart,
    Message,
    Ping,
    PromptScored,
    ResponseFormat,
    SamplingParams,
    Started,
    TextDelta,
    TextPart,
    TextPrompt,
    TokensPrompt,
    Tool,
    ToolChoice,
    Usage,
)
from cortex_core.errors import (
    ContextLengthExceeded,
    CortexError,
    DeviceFailed,
    InvalidRequest,
    ModelNotLoaded,
    QueueFull,
    WrongModality,
)
from cortex_core.ids import ModelId, RequestId
from cortex_core.neuron_api import ModelLimit, NodeModel
from neurond.generation import Generation
from neurond.images.limits import ImageLimits
from neurond.images.reader import ImageReader
from neurond.metrics import GenerationMetrics
from neurond.supervisor.jobs import Admitted, ChoiceFinished, EngineJob, PromptToken, Token
from neurond.supervisor.streams import TokenStream
from neurond.text.model_text import ModelText
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
from neurond.text.pool import TextPool
from neurond.text.template import ChatTemplate
from tests.fakes.tokenizers_made import EOS, byte_level, model_tokenizer, prepared

MODEL = ModelId("file:/made")
TOKENIZER = byte_level()
END = TOKENIZER.token_to_id(EOS) or 0
VOCABULARY = TOKENIZER.get_vocab_size()
CONTEXT = 64


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


class Control:
    """Takes note of what a stream asks of its actor."""

    def __init__(self) -> None:
        self.finished: list[int] = []
        self.cancelled = False

    def pause(self, choice: int) -> None: ...

    def resume(self, choice: int) -> None: ...

    def finish(self, choice: int) -> None:
        self.finished.append(choice)

    def cancel(self) -> None:
        self.cancelled = True


Script = Callable[[EngineJob, TokenStream], None]


class ScriptedEngine:
    """Plays a script on each job's stream."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.jobs: list[EngineJob] = []
        self.controls: list[Control] = []
        self.refusal: CortexError | None = None

    def require_ready(self, model_id: ModelId) -> NodeModel:
        if model_id != MODEL:
            raise ModelNotLoaded(f"cannot generate: {model_id} is unloaded on this node")
        return NodeModel(MODEL, "torch", "ready", limit=ModelLimit(context=CONTEXT), weights_id="w")

    def submit(self, job: EngineJob) -> TokenStream:
        if self.refusal is not None:
            raise self.refusal
        control = Control()
        self.jobs.append(job)
        self.controls.append(control)
        stream = TokenStream(job.n, control)
        self.script(job, stream)
        return stream


class Texts:
    template = "{{ messages[-1].content }}"

    async def get(self, _model_id: ModelId, _template: str | None = None) -> ModelText:
        template = ChatTemplate(self.template, model=MODEL, special_tokens={})
        tokenizer = model_tokenizer(TOKENIZER)
        answers = AnswerFormat(Parsers("hermes", "none"), tokenizer.pieces)
        return ModelText(prepared(TOKENIZER), tokenizer, template, answers)


class Formats:
    """Takes any format but one that is named bad."""

    async def check(self, response_format: bytes) -> None:
        if b"bad" in response_format:
            raise InvalidRequest("cannot hold the answer to it", param="response_format")


def says(text: str, *, end: bool = True) -> Script:
    """The engine says `text` in each choice, up to `max_tokens`."""

    def play(job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(3))
        ids = [*ids_of(text), END] if end else ids_of(text)
        ids = ids[len(job.replayed_token_ids) :]
        for index in range(job.n):
            for id_ in ids[: job.max_tokens]:
                stream.deliver(Token(index, id_))
            enough = len(ids) <= job.max_tokens
            stream.deliver(ChoiceFinished(index, "stop" if enough else "length"))

    return play


class Rig:
    def __init__(self, script: Script, *, ping_interval_s: float = 60.0) -> None:
        self.engine = ScriptedEngine(script)
        self.registry = CollectorRegistry()
        self.pool = TextPool(1)
        self.formats = Formats()
        self.texts = Texts()
        self.generation = Generation(
            self.engine,
            self.texts,  # type: ignore[arg-type]  # it opens one model only
            self.pool,
            ImageReader(ImageLimits(), self.pool),
            self.formats,  # type: ignore[arg-type]  # it starts no process
            GenerationMetrics(self.registry),
            ping_interval_s=ping_interval_s,
            new_seed=lambda: 77,
        )

    async def run(self, request: GenerateRequest) -> list[Event]:
        return [event async for event in await self.generation.start(request)]

    def outcome(self, outcome: str, model: str = MODEL) -> float | None:
        labels = {"model": model, "outcome": outcome}
        return self.registry.get_sample_value("neuron_requests_total", labels)


def request(text: str = "hi", *, n: int = 1, **sampling: object) -> GenerateRequest:
    return GenerateRequest(RequestId("r"), MODEL, TextPrompt(text), SamplingParams(**sampling), n=n)


def text_of(events: list[Event], index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == index)


async def test_a_request_gives_started_deltas_finished_completed() -> None:
    rig = Rig(says("hello"))
    events = await rig.run(request())
    assert events[0] == Started(RequestId("r"), MODEL, 2, 3, "w")
    assert text_of(events) == "hello"
    assert isinstance(events[-2], Finished)
    assert events[-2].reason == "stop"
    tokens = len(ids_of("hello")) + 1
    assert events[-1] == Completed(Usage(2, tokens, 3))
    assert rig.outcome("completed") == 1


async def test_what_is_there_at_a_time_comes_together() -> None:
    rig = Rig(says("hello"))
    whole = await rig.run(request())
    batches = [events async for events in await rig.generation.start_batches(request())]
    assert [event for events in batches for event in events] == whole
    assert len(batches) == 2
    assert batches[-1] == [whole[-1]]


async def test_the_job_is_complete_and_clamped() -> None:
    rig = Rig(says("x"))
    await rig.run(request("qrs", max_tokens=32_000, temperature=0.5))
    job = rig.engine.jobs[0]
    assert list(job.prompt_token_ids) == ids_of("qrs")
    assert job.max_tokens == CONTEXT - 3
    assert job.seed == 77
    assert job.eos_token_ids == (END,)
    await rig.run(request("qrs", seed=5, max_tokens=4))
    assert rig.engine.jobs[1].seed == 5
    assert rig.engine.jobs[1].max_tokens == 4


async def test_the_job_carries_the_format_as_it_came() -> None:
    rig = Rig(says("x"))
    await rig.run(request())
    wanted = ResponseFormat("regex", text="x+")
    await rig.run(msgspec.structs.replace(request(), response_format=wanted))
    plain, held = (job.response_format for job in rig.engine.jobs)
    assert plain is None
    assert held is not None
    assert msgspec.json.decode(held, type=ResponseFormat) == wanted


@pytest.mark.parametrize(
    ("wanted", "says_why"),
    [
        (ResponseFormat("json_schema"), "needs its schema"),
        (ResponseFormat("regex", text="bad"), "cannot hold the answer to it"),
    ],
)
async def test_a_bad_format_is_refused_before_the_engine_hears_of_it(
    wanted: ResponseFormat, says_why: str
) -> None:
    rig = Rig(says("x"))
    with pytest.raises(InvalidRequest, match=says_why):
        await rig.generation.start(msgspec.structs.replace(request(), response_format=wanted))
    assert not rig.engine.jobs


def calls(*tools: Tool, wanted: ResponseFormat | None = None) -> GenerateRequest:
    message = Message("user", (TextPart("hi"),))
    choice = ToolChoice("auto" if wanted is not None else "required")
    prompt = ChatPrompt((message,), tools=tools, tool_choice=choice)
    return msgspec.structs.replace(request(), prompt=prompt, response_format=wanted)


async def test_calls_of_tools_that_are_not_strict_are_held_as_far_as_can_be() -> None:
    rig = Rig(says("x"))
    parameters = {"type": "object", "properties": {"bad": {"type": "string"}}}
    await rig.run(calls(Tool("loose", None, parameters), Tool("kept", strict=True)))
    held = rig.engine.jobs[0].response_format
    assert held is not None
    assert b"loose" in held
    assert b"bad" not in held
    with pytest.raises(InvalidRequest, match="the tool kept's parameters") as told:
        await rig.run(calls(Tool("loose"), Tool("kept", None, parameters, strict=True)))
    assert told.value.param == "tools"


async def test_an_error_in_the_form_that_was_asked_for_is_no_error_of_the_tools() -> None:
    rig = Rig(says("x"))
    wanted = ResponseFormat("json_schema", schema={"const": "bad"})
    with pytest.raises(InvalidRequest, match="cannot hold the answer to it") as told:
        await rig.run(calls(Tool("loose"), wanted=wanted))
    assert told.value.param == "response_format"


async def test_an_answer_that_fills_the_context_ends_with_length() -> None:
    rig = Rig(says("y" * 100, end=False))
    events = await rig.run(request("qrs", max_tokens=32_000))
    assert text_of(events) == "y" * (CONTEXT - 3)
    assert isinstance(events[-2], Finished)
    assert events[-2].reason == "length"


async def test_a_prompt_that_is_too_long_is_refused_in_the_words_clients_know() -> None:
    rig = Rig(says("x"))
    with pytest.raises(
        ContextLengthExceeded, match=r"^prompt is too long: 64 tokens > 63 maximum$"
    ) as caught:
        await rig.generation.start(request("z" * CONTEXT))
    assert caught.value.param == "prompt"
    assert rig.outcome("context_length_exceeded", "unknown") == 1
    chat = ChatPrompt((Message("user", (TextPart("z" * CONTEXT),)),))
    with pytest.raises(ContextLengthExceeded) as caught:
        await rig.generation.start(GenerateRequest(RequestId("r"), MODEL, chat))
    assert caught.value.param == "messages"


async def test_only_what_is_small_is_tokenised_on_the_loop() -> None:
    rig = Rig(says("x"))
    rig.pool.close()
    assert await rig.generation.count_tokens(MODEL, CountTokensRequest(TextPrompt("q"))) == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        await rig.generation.count_tokens(MODEL, CountTokensRequest(TextPrompt("q" * 10_000)))


@pytest.mark.parametrize(
    ("replayed", "choice", "on_loop"),
    [(64, "auto", True), (65, "auto", False), (1, "required", False)],
)
async def test_long_replays_and_grammars_of_tools_are_not_made_on_the_loop(
    replayed: int, choice: str, on_loop: bool
) -> None:
    rig = Rig(says("x"))
    prompt = ChatPrompt((), tools=(Tool("f"),), tool_choice=ToolChoice(choice))
    asked = GenerateRequest(
        RequestId("r"), MODEL, prompt, continue_from=ContinueFrom((1,), (2,) * replayed, 0)
    )
    assert isinstance((await rig.run(asked))[-1], Completed)
    rig.pool.close()
    with nullcontext() if on_loop else pytest.raises(RuntimeError, match="after shutdown"):
        await rig.run(asked)


async def test_a_stop_string_ends_the_choice_in_the_engine_too() -> None:
    def goes_on(_job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(3))
        for id_ in ids_of("one two three"):
            stream.deliver(Token(0, id_))

    rig = Rig(goes_on)
    events = await rig.run(request(stop=("two",)))
    assert text_of(events) == "one "
    assert isinstance(events[-2], Finished)
    assert events[-2].stop_sequence == "two"
    assert rig.engine.controls[0].finished == [0]
    usage = events[-1]
    assert isinstance(usage, Completed)
    assert usage.usage.completion_tokens == len(ids_of("one two"))


async def test_choices_are_counted_together() -> None:
    rig = Rig(says("ab"))
    events = await rig.run(request(n=3))
    assert [text_of(events, index) for index in range(3)] == ["ab"] * 3
    assert events[-1] == Completed(Usage(2, 3 * (len(ids_of("ab")) + 1), 3))


async def test_a_silent_engine_is_bridged_by_pings() -> None:
    streams: list[TokenStream] = []
    rig = Rig(lambda _job, stream: streams.append(stream), ping_interval_s=0.01)
    events = await rig.generation.start(request())
    assert [await anext(events) for _ in range(3)] == [Ping()] * 3
    while not streams:
        assert await anext(events) == Ping()
    streams[0].deliver(Admitted(0))
    streams[0].deliver(ChoiceFinished(0, "stop"))
    kinds = [type(event) async for event in events if not isinstance(event, Ping)]
    assert kinds == [Started, Finished, Completed]


async def test_refusals_come_before_anything_is_said() -> None:
    rig = Rig(says("x"))
    rig.engine.refusal = QueueFull("cannot queue", retry_after_s=1.0)
    with pytest.raises(QueueFull):
        await rig.generation.start(request())
    with pytest.raises(ModelNotLoaded):
        await rig.generation.start(
            GenerateRequest(RequestId("r"), ModelId("pypi:other"), TextPrompt("x"))
        )
    picture = Message("user", (MediaPart("image", "image/png", b"x"),))
    with pytest.raises(WrongModality):
        await rig.generation.start(GenerateRequest(RequestId("r"), MODEL, ChatPrompt((picture,))))


async def test_a_failure_in_the_middle_is_the_last_event() -> None:
    def dies(_job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        stream.deliver(Token(0, ids_of("a")[0]))
        stream.fail(DeviceFailed("cannot go on: it died"))

    rig = Rig(dies)
    events = await rig.run(request())
    assert text_of(events) == "a"
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "device_failed"
    assert rig.outcome("device_failed") == 1


async def test_an_engine_that_ends_too_early_is_a_failure() -> None:
    def gives_up(_job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        asyncio.get_running_loop().call_soon(stream.cancel)

    events = await Rig(gives_up).run(request())
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "internal_error"


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_closing_the_stream_cancels_the_request(taken: int) -> None:
    def endless(_job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        stream.deliver(Token(0, ids_of("a")[0]))

    rig = Rig(endless)
    events: AsyncGenerator[Event, None] = await rig.generation.start(request())
    for _ in range(taken):
        await anext(events)
    await events.aclose()
    assert rig.engine.controls[0].cancelled
    assert rig.outcome("cancelled") == 1


async def test_cancelling_a_waiting_reader_cancels_the_request() -> None:
    rig = Rig(lambda _job, stream: stream.deliver(Admitted(0)))
    events = await rig.generation.start(request())
    await anext(events)
    reader = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait({reader})
    assert rig.engine.controls[0].cancelled


@pytest.mark.parametrize("cut", range(8))
async def test_a_stream_cut_anywhere_goes_on_as_if_uncut(cut: int) -> None:
    rig = Rig(says("ab cd, stop"))
    asked = request("hello", stop=("never",))
    uncut = await rig.run(asked)
    deltas = [event for event in uncut if isinstance(event, TextDelta | Finished)]
    seen = deltas[: min(cut, len(deltas) - 1)]
    outputs = tuple(id_ for event in seen for id_ in event.token_ids)
    going_on = GenerateRequest(
        RequestId("r"),
        MODEL,
        TextPrompt("not rendered again"),
        asked.sampling,
        continue_from=ContinueFrom(tuple(ids_of("hello")), outputs, len(seen)),
    )
    events = await rig.run(going_on)
    rest = [event for event in events if isinstance(event, TextDelta | Finished)]
    assert seen + rest == deltas
    assert isinstance(events[-1], Completed)
    assert isinstance(uncut[-1], Completed)
    assert events[-1].usage == uncut[-1].usage


async def test_a_continuation_that_is_at_its_end_needs_no_engine() -> None:
    rig = Rig(says("x"))
    tokens = tuple(ids_of("qr"))
    going_on = GenerateRequest(
        RequestId("r"),
        MODEL,
        TextPrompt(""),
        SamplingParams(max_tokens=2),
        continue_from=ContinueFrom((1, 2), tokens, 2),
    )
    events = await rig.run(going_on)
    assert rig.engine.jobs == []
    assert [type(event) for event in events] == [Started, Finished, Completed]
    assert events[-1] == Completed(Usage(2, 2))


@pytest.mark.parametrize(
    ("going_on", "n", "param"),
    [
        (ContinueFrom((1,), (2,), 1), 2, "continue_from"),
        (ContinueFrom((), (2,), 1), 1, "continue_from.prompt_token_ids"),
        (ContinueFrom((1,), (2,), 9), 1, "continue_from.next_seq"),
        (ContinueFrom((1, VOCABULARY), (2,), 1), 1, "continue_from.prompt_token_ids"),
        (ContinueFrom((1,), (2, VOCABULARY), 1), 1, "continue_from.output_token_ids"),
        (ContinueFrom((-1,), (2,), 1), 1, "continue_from.prompt_token_ids"),
    ],
)
async def test_impossible_continuations_are_refused(
    going_on: ContinueFrom, n: int, param: str
) -> None:
    asked = GenerateRequest(RequestId("r"), MODEL, TextPrompt("x"), n=n, continue_from=going_on)
    rig = Rig(says("x"))
    with pytest.raises(InvalidRequest) as caught:
        await rig.generation.start(asked)
    assert caught.value.param == param
    assert rig.engine.jobs == []


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        ({"stop_token_ids": (1, VOCABULARY)}, "stop_token_ids"),
        ({"logit_bias": {VOCABULARY: 1.0}}, "logit_bias"),
        ({"logit_bias": {VOCABULARY - 1: 1.0}, "stop_token_ids": (-1,)}, "stop_token_ids"),
    ],
)
async def test_tokens_that_the_model_lacks_cannot_be_biased_or_stop(
    sampling: dict[str, object], param: str
) -> None:
    rig = Rig(says("x"))
    with pytest.raises(InvalidRequest, match="not in the vocabulary") as caught:
        await rig.generation.start(request(**sampling))
    assert caught.value.param == param
    assert rig.engine.jobs == []


async def test_the_last_token_of_the_vocabulary_can_be_biased() -> None:
    events = await Rig(says("x")).run(request(logit_bias={VOCABULARY - 1: 1.0}))
    assert text_of(events) == "x"


async def test_prompt_token_ids_come_with_started_where_they_are_wanted() -> None:
    asked = GenerateRequest(RequestId("r"), MODEL, TokensPrompt((5, 6)), want_prompt_token_ids=True)
    started = (await Rig(says("x")).run(asked))[0]
    assert isinstance(started, Started)
    assert started.prompt_token_ids == (5, 6)


async def test_tokens_are_counted_without_an_engine() -> None:
    rig = Rig(says("x"))
    assert await rig.generation.count_tokens(MODEL, CountTokensRequest(TextPrompt("four"))) == 4
    many = CountTokensRequest(TextPrompt("q" * 5000))
    assert await rig.generation.count_tokens(MODEL, many) == 5000
    assert rig.engine.jobs == []


def talk(*texts: str, truncates: bool, max_tokens: int | None = None) -> GenerateRequest:
    turns = tuple(
        Message("assistant" if number % 2 else "user", (TextPart(text),))
        for number, text in enumerate(texts)
    )
    prompt = ChatPrompt(turns, truncates=truncates)
    return GenerateRequest(RequestId("r"), MODEL, prompt, SamplingParams(max_tokens=max_tokens))


@pytest.mark.parametrize(("max_tokens", "kept"), [(4, 3), (None, 1), (40, 1)])
async def test_a_conversation_is_cut_to_the_context_with_room_for_an_answer(
    max_tokens: int | None, kept: int
) -> None:
    rig = Rig(says("Yes"))
    rig.texts.template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    turns = ["a" * 20, "b" * 20, "c" * 20, "d" * 20, "e" * 20]
    events = await rig.run(talk(*turns, truncates=True, max_tokens=max_tokens))
    assert text_of(events) == "Yes"
    (job,) = rig.engine.jobs
    assert job.prompt_token_ids == ids_of("".join(turns[-kept:]))
    assert job.max_tokens == min(max_tokens or CONTEXT, CONTEXT - 20 * kept)


async def test_a_last_turn_is_taken_unless_it_fills_the_context() -> None:
    rig = Rig(says("Y", end=False))
    rig.texts.template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    await rig.run(talk("a" * 20, "b" * 20, "c" * 62, truncates=True))
    assert rig.engine.jobs[0].prompt_token_ids == ids_of("c" * 62)
    for texts, truncates in ((["a", "b", "c" * 80], True), (["a" * 40, "b", "c" * 40], False)):
        with pytest.raises(ContextLengthExceeded, match="tokens > 63"):
            await rig.run(talk(*texts, truncates=truncates))


async def test_what_is_continued_is_not_cut() -> None:
    rig = Rig(says("Yes"))
    rig.texts.template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    turns = ["a" * 40, "b", "c" * 40]
    going_on = ContinueFrom(tuple(ids_of("".join(turns))), tuple(ids_of("Y")), 2)
    asked = msgspec.structs.replace(talk(*turns, truncates=True), continue_from=going_on)
    with pytest.raises(ContextLengthExceeded, match="tokens > 63"):
        await rig.run(asked)
    assert rig.engine.jobs == []


async def test_no_tokens_can_be_asked_for() -> None:
    rig = Rig(says("Yes"))
    events = await rig.run(request("hi", n=2, max_tokens=0, logprobs=1))
    started, *ends, completed = events
    assert isinstance(started, Started)
    assert started.cached_tokens == 3
    assert ends == [Finished(0, "length"), Finished(1, "length", seq=1)]
    assert completed == Completed(Usage(len(ids_of("hi")), 0, cached_tokens=3))
    assert rig.engine.jobs[0].max_tokens == 1


async def test_a_prompts_scores_come_before_the_answer() -> None:
    ids = ids_of("hiya")

    def play(job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        for token_id in job.prompt_token_ids[1:]:
            stream.deliver(PromptToken(token_id, -1.5, ((token_id, -1.5),)))
        stream.deliver(Token(0, ids[0]))
        stream.deliver(ChoiceFinished(0, "length"))

    rig = Rig(play)
    asked = msgspec.structs.replace(
        request("hiya", max_tokens=0),
        sampling=SamplingParams(max_tokens=0, logprobs=1, scores_prompt=True),
    )
    started, *scored, end, completed = await rig.run(asked)
    assert isinstance(started, Started)
    assert isinstance(end, Finished)
    assert isinstance(completed, Completed)
    assert all(isinstance(event, PromptScored) for event in scored)
    scores = [score for event in scored for score in event.scores]  # type: ignore[union-attr]
    assert [score.token_id for score in scores] == ids
    assert "".join(score.text for score in scores) == "hiya"
    assert [score.logprob for score in scores] == [0.0, *[-1.5] * (len(ids) - 1)]
    assert scores[-1].top[0].token_id == ids[-1]
    assert not any(event.text for event in scored)  # type: ignore[union-attr]
    going_on = ContinueFrom(tuple(ids), (ids[0],), 1)
    again = msgspec.structs.replace(
        asked,
        sampling=SamplingParams(max_tokens=3, logprobs=1, scores_prompt=True),
        continue_from=going_on,
    )
    rig.engine.script = says("hYes")
    assert not any(isinstance(event, PromptScored) for event in await rig.run(again))
    assert not rig.engine.jobs[-1].sampling.scores_prompt


async def test_a_scored_prompt_of_ids_has_its_text_whole() -> None:
    ids = (END, *ids_of("a\N{GRINNING FACE}"))
    assert len(ids) > 3, "the face has several tokens"

    def play(job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        for token_id in job.prompt_token_ids[1:]:
            stream.deliver(PromptToken(token_id, -1.5))
        stream.deliver(Token(0, ids[1]))
        stream.deliver(ChoiceFinished(0, "length"))

    asked = msgspec.structs.replace(
        request("", max_tokens=0),
        prompt=TokensPrompt(ids),
        sampling=SamplingParams(max_tokens=0, logprobs=0, scores_prompt=True),
    )
    events = await Rig(play).run(asked)
    texts = [event.text for event in events if isinstance(event, PromptScored)]
    assert "".join(texts) == texts[0] == f"{EOS}a\N{GRINNING FACE}"
