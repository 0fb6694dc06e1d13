"""From requests to events over an engine that follows a script."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext

import msgspec
import pytest

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    ContinueFrom,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    MediaPart,
    Message,
    Ping,
    ResponseFormat,
    Started,
    TextPart,
    TextPrompt,
    Tool,
    ToolChoice,
    Usage,
)
from cortex_core.errors import (
    DeviceFailed,
    InvalidRequest,
    ModelNotLoaded,
    QueueFull,
    WrongModality,
)
from cortex_core.ids import ModelId, RequestId
from neurond.stream_items import Admitted, Adopted, ChoiceFinished, Token
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.streams import TokenStream
from tests.fakes.generation_rig import (
    CONTEXT,
    END,
    MODEL,
    VOCABULARY,
    Rig,
    ids_of,
    request,
    says,
    text_of,
)


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


async def test_usage_has_what_was_found_cached_after_the_start() -> None:
    def play(_job: EngineJob, stream: TokenStream) -> None:
        for item in (Admitted(3), Adopted(5), Token(0, END), ChoiceFinished(0, "stop")):
            stream.deliver(item)

    rig = Rig(play)
    events = await rig.run(request("longer"))
    assert events[0] == Started(RequestId("r"), MODEL, 6, 3, "w")
    assert isinstance(events[-1], Completed)
    assert events[-1].usage.cached_tokens == 5
    counted = rig.registry.get_sample_value("neuron_cached_prompt_tokens_total", {"model": MODEL})
    assert counted == 5


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


@pytest.mark.parametrize(
    ("replayed", "choice", "on_loop"),
    [(64, "none", True), (65, "none", False), (1, "auto", False), (1, "required", False)],
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
