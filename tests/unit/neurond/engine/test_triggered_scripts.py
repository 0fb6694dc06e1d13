"""Scripted answers through the engine: their calls are held, and nothing else of them."""

from pathlib import Path

import msgspec
import pytest
from tokenizers import AddedToken

from cortex_core.canonical import ChatPrompt, SamplingParams, Tool, ToolChoice
from cortex_core.ids import RequestId
from neurond.actor.formats import ModelFormats
from neurond.engine.batch import Grammar
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine, EngineRequest
from neurond.engine.scripted_runner import ScriptedRunner
from neurond.engine.triggers import DeviceFormat
from neurond.sources.script import Rule, Script
from neurond.sources.scripted import END, byte_tokenizer
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
from neurond.text.pieces import TokenPieces
from tests.unit.neurond.engine.engines import Told, run

TOKENIZER = byte_tokenizer()
TOKENIZER.add_tokens(
    [AddedToken(text, normalized=False) for text in ("<tool_call>", "</tool_call>")]
)
END_ID = TOKENIZER.token_to_id(END)
SAY = Tool("say", None, {"properties": {"it": {"type": "string"}}, "required": ["it"]})
GOOD = '<tool_call>\n{"name": "say", "arguments": {"it": "a, a, a, a, a, a"}}\n</tool_call>'
UNKNOWN = GOOD.replace("say", "tell")
WRONG = GOOD.replace('"it"', '"that"')
BROKEN = GOOD.replace('"}}', '"}')


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> ModelFormats:
    folder: Path = tmp_path_factory.mktemp("model")
    TOKENIZER.save(str(folder / "tokenizer.json"))
    return ModelFormats(folder, TOKENIZER.get_vocab_size(), (END_ID,))


def grammar(formats: ModelFormats, replayed: str = "") -> Grammar:
    asked = ChatPrompt((), tools=(SAY,), tool_choice=ToolChoice("auto"))
    held = AnswerFormat(Parsers("hermes", "none"), TokenPieces(TOKENIZER)).held_calls(asked, [])
    assert held is not None
    wanted = DeviceFormat("grammar", text=held.grammar, triggers=held.calls.triggers)
    return formats.compile(msgspec.json.encode(wanted), ends=(END_ID,), replayed=ids_of(replayed))


def answered(
    formats: ModelFormats, answer: str, *, drafts: int = 0, replayed: str = ""
) -> tuple[Told, Engine]:
    rules = [Rule(answer=answer)]
    runner = ScriptedRunner(Script(rules=rules), TOKENIZER, END_ID, lambda _seconds: None)
    config = SchedulerConfig(
        num_blocks=64,
        context_tokens=512,
        block_tokens=8,
        max_sequences=4,
        step_tokens=16,
        max_draft_rows=drafts,
    )
    engine = Engine(runner, config)
    engine.add(
        EngineRequest(
            request_id=RequestId("r"),
            first_stream=1,
            prompt_token_ids=ids_of("Say it." + replayed),
            num_replayed_tokens=len(ids_of(replayed)),
            sampling=SamplingParams(),
            max_tokens=300,
            seed=1,
            eos_token_ids=(END_ID,),
            grammar=grammar(formats, replayed),
        )
    )
    return run(engine), engine


def text_of(told: Told) -> str:
    text: str = TOKENIZER.decode(told.tokens.get(1, []), skip_special_tokens=True)
    return text


FREE = 'Well: {"name": [ </tool_call> }} na, na, na, na, na. '


@pytest.mark.parametrize("drafts", [0, 6])
def test_good_calls_and_any_prose_come_as_they_are_said(formats: ModelFormats, drafts: int) -> None:
    answer = f"{FREE}{GOOD} and {GOOD}{FREE}"
    told, engine = answered(formats, answer, drafts=drafts)
    assert told.failed == {}
    assert told.reasons == {1: "stop"}
    assert told.tokens[1] == [*ids_of(answer), END_ID]
    assert (engine.scheduler.num_accepted_tokens > 0) == bool(drafts)


@pytest.mark.parametrize("drafts", [0, 6])
@pytest.mark.parametrize("bad", [UNKNOWN, WRONG, BROKEN, GOOD[:40]])
def test_what_is_no_call_behind_a_marker_is_masked(
    formats: ModelFormats, bad: str, drafts: int
) -> None:
    told, _ = answered(formats, f"{FREE}{bad}", drafts=drafts)
    assert told.failed == {RequestId("r"): "invalid_request"}


@pytest.mark.parametrize("place", [3, len(FREE), len(FREE) + 30, len(FREE) + len(GOOD) + 2])
def test_a_call_is_held_where_its_answer_goes_on(formats: ModelFormats, place: int) -> None:
    for bad, failed in ((GOOD, {}), (BROKEN, {RequestId("r"): "invalid_request"})):
        answer = f"{FREE}{GOOD}{FREE}{bad}"
        told, _ = answered(formats, answer, replayed=answer[:place])
        assert told.failed == failed
