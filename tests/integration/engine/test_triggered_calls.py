"""Calls of random models held from their marker on, whatever goes on around them."""

import json

import pytest
from jsonschema import Draft202012Validator
from tokenizers import AddedToken

from cortex_core.canonical import ChatPrompt, SamplingParams, Tool, ToolChoice
from neurond.engine.triggered_grammar import TriggeredGrammar
from neurond.engine.triggers import DeviceFormat
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
from tests.fakes.engine_runs import EngineUnderTest, ids, make_engine
from tests.fakes.grammar_walks import Speller
from tests.fakes.tiny_models import VOCAB_SIZE
from tests.fakes.tokenizers_made import byte_level

OPENS, CLOSES = "<tool_call>", "</tool_call>"
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 5},
        "tags": {"type": "array", "items": {"enum": ["old", "new"]}, "maxItems": 2},
    },
    "required": ["city", "tags"],
    "additionalProperties": False,
}
TOOL = Tool("find", None, SCHEMA)
PROMPT = list(range(20, 45))
ROOM = 300


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Speller:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (OPENS, CLOSES)])
    padding = VOCAB_SIZE - tokenizer.get_vocab_size()
    return Speller(tokenizer, tmp_path_factory.mktemp("tokenizer"), padding=padding)


@pytest.fixture(scope="module")
def wanted(speller: Speller) -> DeviceFormat:
    asked = ChatPrompt((), tools=(TOOL,), tool_choice=ToolChoice("auto"))
    held = AnswerFormat(Parsers("hermes", "none"), speller.pieces).held_calls(asked, [])
    assert held is not None
    return DeviceFormat("grammar", text=held.grammar, triggers=held.calls.triggers)


class Rig:
    """Asks an engine for answers that begin calls now and then."""

    def __init__(self, engine: EngineUnderTest, speller: Speller, wanted: DeviceFormat) -> None:
        self.engine = engine
        self._speller = speller
        self._wanted = wanted
        [self.marker] = wanted.triggers.token_ids if wanted.triggers is not None else ()
        self.sampling = self.sampled(1.0, 4.0)

    def sampled(self, temperature: float, bias: float) -> SamplingParams:
        """`bias` is towards the marker."""
        return SamplingParams(
            temperature=temperature, logit_bias={self.marker: bias}, ignore_eos=True
        )

    def grammar(self, replayed: list[int]) -> TriggeredGrammar:
        compiler, end = self._speller.compiler, self._speller.end
        grammar = compiler.compile_triggered(self._wanted, ends=(end,), replayed=replayed)
        assert grammar is not None
        return grammar

    def ask(self, seed: int, replayed: list[int] | None = None) -> int:
        replayed = replayed or []
        return self.engine.submit(
            PROMPT,
            ROOM - len(replayed),
            self.sampling,
            seed=seed,
            replayed=replayed,
            grammar=self.grammar(replayed),
            eos_token_ids=(self._speller.end,),
        )

    def answers(self) -> dict[int, list[int]]:
        return {stream: ids(tokens) for stream, tokens in self.engine.finish().items()}

    def calls_of(self, tokens: list[int]) -> list[str]:
        """Return the texts from each marker up to the end of the call, where it comes to one."""
        text = b"".join(map(self._speller.pieces.piece, tokens)).decode("utf-8", "replace")
        return [each.partition(CLOSES)[0] for each in text.split(OPENS)[1:] if CLOSES in each]


@pytest.fixture
def rig(tiny, speller: Speller, wanted: DeviceFormat):
    def make(**sizes: int) -> Rig:
        return Rig(make_engine(tiny("llama").loaded, **sizes), speller, wanted)

    return make


def test_calls_are_instances_of_their_schema_and_the_rest_is_free(rig) -> None:
    made = rig()
    streams = [made.ask(seed) for seed in range(8)]
    answers = made.answers()
    calls = [call for stream in streams for call in made.calls_of(answers[stream])]
    assert len(calls) > 8
    for call in calls:
        value = json.loads(call)
        assert value["name"] == "find"
        Draft202012Validator(SCHEMA).validate(value["arguments"])
    assert all(len(answers[stream]) == ROOM for stream in streams)


def test_preemption_and_drafts_change_no_answer(rig) -> None:
    answers = []
    for sizes in ({}, {"num_blocks": 64}, {"max_draft_rows": 12}):
        made = rig(**sizes)
        made.sampling = made.sampled(0.5, 1.5)  # it repeats itself, so that something is drafted
        for seed in range(5):
            made.ask(seed)
        answers.append(made.answers())
        scheduler = made.engine.engine.scheduler
        assert (scheduler.num_preemptions > 0) == ("num_blocks" in sizes)
        assert (scheduler.num_drafted_tokens > 0) == ("max_draft_rows" in sizes)
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("kept", [1, 30, 77, 150])
def test_a_stream_goes_on_elsewhere_with_the_same_answer(rig, kept: int) -> None:
    made = rig()
    stream = made.ask(5)
    whole = made.answers()[stream]
    other = rig()
    stream = other.ask(5, whole[:kept])
    assert whole[:kept] + other.answers()[stream] == whole
