"""A `Generation` over an engine that follows a script, and requests for it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from tokenizers import AddedToken

from cortex_core.canonical import Event, GenerateRequest, SamplingParams, TextDelta, TextPrompt
from cortex_core.errors import CortexError, InvalidRequest, ModelNotLoaded
from cortex_core.ids import ModelId, RequestId
from cortex_core.neuron_api import ModelLimit, NodeModel
from neurond.generation import Generation
from neurond.images.limits import ImageLimits
from neurond.images.reader import ImageReader
from neurond.metrics import GenerationMetrics
from neurond.stream_items import Admitted, ChoiceFinished, NotHeld, Token
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.streams import TokenStream
from neurond.text.model_text import ModelText
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
from neurond.text.pool import TextPool
from neurond.text.template import ChatTemplate
from tests.fakes.tokenizers_made import EOS, byte_level, model_tokenizer, prepared

MODEL = ModelId("file:/made")
TOKENIZER = byte_level()
TOKENIZER.add_tokens([AddedToken("<tool_call>", normalized=False)])
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
    template = "{{ messages[-1].content }}{{ '' if tools else '' }}"  # no tool is described

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


def says(text: str, *, end: bool = True, held: bool = True) -> Script:
    """The engine says `text` in each choice, up to `max_tokens`; `held` as far as it is asked."""

    def play(job: EngineJob, stream: TokenStream) -> None:
        if not held:
            stream.deliver(NotHeld())
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
