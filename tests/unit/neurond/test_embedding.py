"""From embedding requests to events over an engine that follows a script."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from tokenizers.processors import TemplateProcessing

from cortex_core.canonical import (
    Completed,
    Failed,
    Ping,
    TextPrompt,
    TokensPrompt,
    Usage,
)
from cortex_core.canonical_embedding import Embedded, EmbedEvent, EmbedRequest
from cortex_core.errors import (
    ContextLengthExceeded,
    DeviceFailed,
    InvalidRequest,
    ModelNotLoaded,
    QueueFull,
)
from cortex_core.ids import ModelId, RequestId
from cortex_core.neuron_api import EmbeddingSizes, NodeModel
from neurond.embedding import Embedding
from neurond.metrics import GenerationMetrics
from neurond.stream_items import Admitted, ChoiceFinished, Vector
from neurond.supervisor.jobs import EmbedJob
from neurond.supervisor.streams import TokenStream
from neurond.text.model_text import ModelText
from neurond.text.pool import TextPool
from tests.fakes.tokenizers_made import BOS, EOS, byte_level, model_tokenizer, prepared
from tests.fakes.waiting import wait_until_async

MODEL = ModelId("file:/made")
TOKENIZER = byte_level()
BEGIN, END = (TOKENIZER.token_to_id(text) or 0 for text in (BOS, EOS))
TOKENIZER.post_processor = TemplateProcessing(
    single=f"{BOS} $A {EOS}", special_tokens=[(BOS, BEGIN), (EOS, END)]
)
SIZES = EmbeddingSizes(dimensions=4, max_input_tokens=8)
Script = Callable[[EmbedJob, TokenStream], None]


class Control:
    def __init__(self) -> None:
        self.cancelled = False

    def pause(self, choice: int) -> None: ...

    def resume(self, choice: int) -> None: ...

    def finish(self, choice: int) -> None: ...

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedEngine:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.jobs: list[EmbedJob] = []
        self.control = Control()
        self.view = NodeModel(MODEL, "torch", "ready", embedding=SIZES)

    def require_ready(self, model_id: ModelId) -> NodeModel:
        if model_id != MODEL:
            raise ModelNotLoaded(f"cannot use {model_id}: it is unloaded on this node")
        return self.view

    def submit(self, job: EmbedJob) -> TokenStream:
        self.jobs.append(job)
        stream = TokenStream(1, self.control)
        self.script(job, stream)
        return stream


class Texts:
    """Opens one model, once `gate` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, _model_id: ModelId) -> ModelText:
        await self.gate.wait()
        return ModelText(prepared(TOKENIZER), model_tokenizer(TOKENIZER), None)


class Rig:
    def __init__(self, script: Script, *, ping_interval_s: float = 60.0) -> None:
        self.engine = ScriptedEngine(script)
        self.texts = Texts()
        self.registry = CollectorRegistry()
        self.embedding = Embedding(
            self.engine,
            self.texts,  # type: ignore[arg-type]  # it opens one model only
            TextPool(1),
            GenerationMetrics(self.registry),
            ping_interval_s=ping_interval_s,
        )

    async def run(self, request: EmbedRequest) -> list[EmbedEvent]:
        batches = await self.embedding.start(request)
        return [event async for events in batches for event in events]

    def outcome(self, outcome: str) -> float | None:
        labels = {"model": MODEL, "outcome": outcome}
        return self.registry.get_sample_value("neuron_requests_total", labels)


def answers(job: EmbedJob, stream: TokenStream) -> None:
    stream.deliver(Admitted(0))
    for index in range(len(job.inputs)):
        stream.deliver(Vector(index, bytes([index] * 16)))
    stream.deliver(ChoiceFinished(0, "stop"))


def dies(_job: EmbedJob, stream: TokenStream) -> None:
    stream.deliver(Vector(0, bytes(16)))
    stream.fail(DeviceFailed("cannot go on: dead"))


def hangs(_job: EmbedJob, _stream: TokenStream) -> None: ...


def refuses(_job: EmbedJob, _stream: TokenStream) -> None:
    raise QueueFull("cannot take the request")


def request(*texts: str, dimensions: int | None = None, model: str = MODEL) -> EmbedRequest:
    inputs = tuple(TextPrompt(text) for text in texts or ("ab",))
    return EmbedRequest(RequestId("r"), ModelId(model), inputs, dimensions)


async def test_text_gets_its_special_tokens_and_ids_are_taken_as_they_are() -> None:
    rig = Rig(answers)
    inputs = (TextPrompt("hi"), TokensPrompt((5, 6)))
    events = await rig.run(EmbedRequest(RequestId("r"), MODEL, inputs, 3))
    (job,) = rig.engine.jobs
    assert job.inputs[0] == [BEGIN, *TOKENIZER.encode("hi", add_special_tokens=False).ids, END]
    assert job.inputs[1] == [5, 6]
    assert job.dimensions == 3
    assert events == [
        Embedded(0, bytes(16)),
        Embedded(1, bytes([1] * 16)),
        Completed(Usage(len(job.inputs[0]) + 2, 0)),
    ]
    assert rig.outcome("completed") == 1


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        (request("ab", "abcdefghijkl"), ContextLengthExceeded, "input[1]"),
        (request(dimensions=5), InvalidRequest, "dimensions"),
        (request(model="file:/other"), ModelNotLoaded, None),
        (
            EmbedRequest(RequestId("r"), MODEL, (TokensPrompt((1, 10**6)),)),
            InvalidRequest,
            "input[0]",
        ),
    ],
    ids=["long", "dimensions", "not loaded", "no such token"],
)
async def test_what_cannot_be_served_is_refused_before_the_engine(
    asked: EmbedRequest, error: type[Exception], param: str | None
) -> None:
    rig = Rig(answers)
    with pytest.raises(error) as caught:
        await rig.run(asked)
    assert caught.value.param == param  # type: ignore[attr-defined]
    assert rig.engine.jobs == []


@pytest.mark.parametrize(
    "view",
    [
        NodeModel(MODEL, "torch", "ready", capabilities=["completions"], embedding=SIZES),
        NodeModel(MODEL, "torch", "ready"),
    ],
    ids=["by its files", "as it is served"],
)
async def test_a_model_without_vectors_says_so(view: NodeModel) -> None:
    rig = Rig(answers)
    rig.engine.view = view
    with pytest.raises(InvalidRequest, match=r"cannot embed with file:/made"):
        await rig.run(request())


async def test_a_refusal_of_the_engine_is_the_whole_answer() -> None:
    rig = Rig(refuses)
    with pytest.raises(QueueFull):
        await rig.run(request())
    assert rig.outcome("queue_full") == 1


async def test_what_breaks_later_ends_the_events() -> None:
    rig = Rig(dies)
    events = await rig.run(request())
    assert events[0] == Embedded(0, bytes(16))
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "device_failed"


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_silence_is_filled_and_leaving_cancels(taken: int) -> None:
    rig = Rig(hangs, ping_interval_s=0.001)
    batches = await rig.embedding.start(request())
    while not rig.engine.jobs:  # the first silence may be that before the engine was asked
        assert await anext(batches) == [Ping()]
    for _ in range(taken):
        assert await anext(batches) == [Ping()]
    await batches.aclose()
    assert rig.engine.control.cancelled
    assert rig.outcome("cancelled") == 1


async def test_silence_before_the_engine_has_the_inputs_is_filled_too() -> None:
    rig = Rig(answers, ping_interval_s=0.001)
    rig.texts.gate.clear()
    batches = await rig.embedding.start(request())
    assert await anext(batches) == [Ping()]
    rig.texts.gate.set()
    events = [event async for events in batches for event in events]
    assert [event for event in events if not isinstance(event, Ping)] == [
        Embedded(0, bytes(16)),
        Completed(Usage(len(rig.engine.jobs[0].inputs[0]), 0)),
    ]


async def test_leaving_before_the_first_event_cancels_too() -> None:
    rig = Rig(hangs)
    starting = asyncio.create_task(rig.embedding.start(request()))
    await wait_until_async(lambda: bool(rig.engine.jobs))
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert rig.engine.control.cancelled
