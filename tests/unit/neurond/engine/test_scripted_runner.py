"""Scripts as a runner: the engine around it is the one of every model."""

from array import array
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import ResponseFormat, SamplingParams
from cortex_core.errors import ErrorInfo
from cortex_core.ids import RequestId
from neurond.engine.batch import SampledToken
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine, EngineRequest
from neurond.engine.grammar import GrammarCompiler
from neurond.engine.scripted_runner import ScriptedRunner
from neurond.sources.script import Rule, Script
from neurond.sources.scripted import END, byte_tokenizer
from tests.unit.neurond.engine.engines import Told, run

TOKENIZER = byte_tokenizer()
END_ID = TOKENIZER.token_to_id(END)
RULES = [
    Rule(answer="It is 18 °C.", contains=["weather"]),
    Rule(answer="I count: " + "1, 2, 3, " * 8, contains=["count"]),
    Rule(answer="abcxabdy" * 3 + "abdy" * 5 + "abcx" * 20, contains=["spell"]),
]


def engine(
    *, num_blocks: int = 64, block_tokens: int = 4, drafts: int = 0, **settings: float
) -> tuple[Engine, list[float]]:
    """Return an engine and the list of its naps."""
    naps: list[float] = []
    runner = ScriptedRunner(Script(rules=RULES, **settings), TOKENIZER, END_ID, naps.append)
    config = SchedulerConfig(
        num_blocks=num_blocks,
        context_tokens=256,
        block_tokens=block_tokens,
        max_sequences=4,
        step_tokens=16,
        max_draft_rows=drafts,
    )
    return Engine(runner, config), naps


def request(stream: int, prompt: str, replayed: str = "", **options: object) -> EngineRequest:
    values: dict[str, object] = {
        "request_id": RequestId(f"r{stream}"),
        "first_stream": stream,
        "prompt_token_ids": ids_of(prompt + replayed),
        "num_replayed_tokens": len(ids_of(replayed)),
        "sampling": SamplingParams(),
        "max_tokens": 200,
        "seed": stream,
        "eos_token_ids": (END_ID,),
    }
    return EngineRequest(**(values | options))


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def text_of(told: Told, stream: int) -> str:
    return TOKENIZER.decode(told.tokens[stream])


def test_an_answer_is_the_scripts_and_ends_there() -> None:
    made, _ = engine()
    made.add(request(1, "How is the weather?"))
    told = run(made)
    assert text_of(told, 1) == RULES[0].answer
    assert told.reasons == {1: "stop"}


@given(
    num_blocks=st.integers(40, 64),
    drafts=st.sampled_from([0, 6]),
    kinds=st.lists(st.sampled_from(["weather", "count"]), min_size=1, max_size=6),
)
def test_company_blocks_and_drafts_change_nothing(
    num_blocks: int, drafts: int, kinds: list[str]
) -> None:
    made, _ = engine(num_blocks=num_blocks, drafts=drafts)
    for stream, kind in enumerate(kinds):
        made.add(request(stream, f"Please: {kind} for number {stream}."))
    told = run(made, max_steps=5000)
    answers = {"weather": RULES[0].answer, "count": RULES[1].answer}
    assert [text_of(told, stream) for stream in range(len(kinds))] == [
        answers[kind] for kind in kinds
    ]


def test_a_stream_goes_on_where_another_node_left_it() -> None:
    made, _ = engine()
    made.add(request(1, "How is the weather?", replayed="It is 1"))
    assert text_of(run(made), 1) == "8 °C."


def test_a_second_prompt_finds_the_first_in_the_cache() -> None:
    made, _ = engine()
    prompt = "How is the weather today, and tomorrow?"
    made.add(request(1, prompt))
    run(made)
    made.add(request(2, prompt + " And then?"))
    assert run(made).cached[RequestId("r2")] == len(prompt) // 4 * 4


def test_limits_are_those_of_every_model() -> None:
    made, _ = engine()
    made.add(request(1, "weather", max_tokens=5))
    made.add(request(2, "count"))
    told = Told()
    told.take(made.step())
    made.cancel(RequestId("r2"))
    rest = run(made)
    told.take(made.step())
    assert rest.reasons == {1: "length", 2: "cancelled"}


def test_a_prompt_without_a_rule_fails_alone() -> None:
    made, _ = engine()
    made.add(request(1, "anything"))
    made.add(request(2, "weather"))
    told = run(made)
    assert told.failed == {RequestId("r1"): "invalid_request"}
    assert text_of(told, 2) == RULES[0].answer


def test_steps_take_the_time_that_the_script_names() -> None:
    made, naps = engine(tokens_per_second=10, prompt_tokens_per_second=100)
    prompt = "How is the weather?"
    made.add(request(1, prompt, max_tokens=4))
    run(made)
    assert sum(naps) == pytest.approx(len(prompt) / 100 + 3 * 0.1)
    quick, naps = engine()
    quick.add(request(1, prompt))
    run(quick)
    assert sum(naps) == 0


def test_a_script_is_sure_of_its_tokens() -> None:
    made, _ = engine()
    made.add(request(1, "weather", max_tokens=1, sampling=SamplingParams(logprobs=2)))
    ((_, token, _),) = made.step().tokens
    first = ids_of(RULES[0].answer)[0]
    assert token == SampledToken(first, 0.0, ((first, 0.0),))


class Only:
    """A grammar that allows some tokens at any place."""

    is_complete = False

    def __init__(self, text: str) -> None:
        self._mask = array("i", [0] * (TOKENIZER.get_vocab_size() // 32 + 1))
        for id_ in ids_of(text):
            self._mask[id_ // 32] |= 1 << id_ % 32 if id_ % 32 < 31 else -(1 << 31)

    def advance(self, token_id: int) -> bool:
        return False

    def allowed(self) -> "array[int]":
        return self._mask


def test_an_answer_that_leaves_its_form_is_an_error() -> None:
    made, _ = engine()
    made.add(request(1, "weather", grammar=Only("It is")))
    made.add(request(2, "weather", grammar=Only(f"{RULES[0].answer}{END}")))
    told = run(made)
    assert told.failed == {RequestId("r1"): "invalid_request"}
    assert text_of(told, 1) == "It is "
    assert text_of(told, 2) == RULES[0].answer


def test_drafts_that_leave_its_text_harm_no_held_answer(tmp_path: Path) -> None:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    compiler = GrammarCompiler(tmp_path, TOKENIZER.get_vocab_size(), (END_ID,))
    # Behind a wrong third letter the form does not allow the fourth one of the script.
    wanted = msgspec.json.encode(ResponseFormat("regex", text="(abcx|abdy)+"))
    told, steps = [], []
    for drafts in (0, 6):
        made, naps = engine(drafts=drafts)
        made.add(request(1, "spell", grammar=compiler.compile(wanted, ends=())))
        told.append(run(made))
        steps.append(len(naps))
    assert [text_of(each, 1) for each in told] == [RULES[2].answer] * 2
    assert not told[1].failed
    scheduler = made.scheduler
    assert scheduler.num_accepted_tokens < scheduler.num_drafted_tokens
    assert steps[1] == steps[0] - scheduler.num_accepted_tokens
    assert steps[1] < steps[0] / 2, "it goes on with drafts"


def test_no_rule_is_told_as_the_callers_fault() -> None:
    made, _ = engine()
    made.add(request(1, "anything"))
    output = made.step()
    ((_, error),) = output.failed
    assert isinstance(error, ErrorInfo)
    assert "no rule of the model's script" in error.message
