"""With drafts an answer that is held to a form has the tokens that it has without."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex_core.canonical import ResponseFormat, SamplingParams
from neurond.engine.engine import EngineRequest
from neurond.engine.grammar import TokenGrammar
from tests.fakes.counting_grammar import Countdown
from tests.fakes.grammar_walks import Speller
from tests.fakes.tokenizers_made import byte_fallback, byte_level
from tests.unit.neurond.engine.engines import Told, new_engine, request, run
from tests.unit.neurond.text.parsing.held_families import ALL, SEARCH, Family, prompt, tokenizer

FORMS = {
    "regex": ResponseFormat("regex", text="(ab|abc|he){2,40}"),
    "regex with one text in places": ResponseFormat("regex", text="(x: (a|b)bc, hello world){1,9}"),
    "grammar": ResponseFormat(
        "grammar", text='start: item ("," item){0,30}\nitem: "ab" | "abc" | "he" "ll"?\n'
    ),
    "call": ResponseFormat(
        "grammar",
        text='%llguidance {"no_forcing": true}\nstart: "hello" (" 1" call)*\ncall: /(ab|c)+/ ";"\n',
    ),
    "json": ResponseFormat(
        "json_schema",
        schema={
            "type": "object",
            "properties": {
                "hello": {"enum": ["ab", "abc"]},
                "world": {"type": "array", "items": {"enum": ["he", "ll"]}, "maxItems": 9},
            },
            "required": ["hello", "world"],
            "additionalProperties": False,
        },
    ),
}
TEXTS = ("abab", "abcab", "hehe", "x: abc, hello world", "hello 1abc;", '{"hello": "ab", "world":')
SAMPLINGS = (
    SamplingParams(),
    SamplingParams(frequency_penalty=0.5, repetition_penalty=1.1),
)


@pytest.fixture(scope="module", params=[byte_level, byte_fallback], ids=lambda make: make.__name__)
def speller(request, tmp_path_factory):
    return Speller(request.param(), tmp_path_factory.mktemp("model"), padding=40)


def held(
    speller: Speller, grammar: TokenGrammar, stream: int, prompt: list[int], **options: object
) -> EngineRequest:
    asked = request(stream, prompt, eos_token_ids=(speller.end,), **options)
    return replace(asked, grammar=grammar)


def masks_along(speller: Speller, grammar: TokenGrammar, tokens: list[int]) -> list[set[int]]:
    """Return what is allowed behind each of `tokens`, told step by step."""
    found = []
    for token in tokens:
        speller.allowed(grammar)
        grammar.forced()
        grammar.advance(token)
        found.append(speller.allowed(grammar))
    return found


def random_token(data: st.DataObject, speller: Speller, grammar: TokenGrammar) -> int:
    """Draw one that is allowed, or any of a few, or one that is none at all."""
    kind = data.draw(st.sampled_from(("allowed", "allowed", "allowed", "other", "end", "none")))
    if kind == "allowed":
        return data.draw(st.sampled_from(sorted(speller.allowed(grammar.fork()))))
    if kind == "other":
        return data.draw(st.integers(0, speller.vocab_size - 1))
    return speller.end if kind == "end" else 1 << 30


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_drafts_fit_up_to_what_is_refused_or_ends(speller, data, form) -> None:
    grammar = speller.compile(FORMS[form])
    for _ in range(data.draw(st.integers(0, 20))):
        allowed = sorted(speller.allowed(grammar) - {speller.end})
        if not allowed or grammar.fork().advance(token := data.draw(st.sampled_from(allowed))):
            break
        grammar.advance(token)
    before = speller.allowed(grammar)
    drafts: list[int] = []
    ahead = grammar.fork()
    for _ in range(5):
        drafts.append(random_token(data, speller, ahead))
        ahead.advance(drafts[-1])
        if ahead.is_complete or grammar.fitting(drafts) != len(drafts):
            break
    fits = grammar.fitting(drafts)
    walked = grammar.fork()
    for number, token in enumerate(drafts):
        if token not in speller.allowed(walked):
            # It may fit all the same: masks leave out spellings that are not the model's own.
            break
        goes_on = token != speller.end and not walked.advance(token)
        assert (number < fits) == goes_on
        if not goes_on:
            break
    behind = []
    for stop in range(1, fits + 1):
        fork = grammar.fork()
        for token in drafts[:stop]:
            assert not fork.advance(token)
        behind.append(speller.allowed(fork))
    assert behind == masks_along(speller, grammar.fork(), drafts[:fits])
    assert speller.allowed(grammar) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_what_is_forced_is_all_that_is_allowed(speller, data, form) -> None:
    grammar = speller.compile(FORMS[form])
    for _ in range(data.draw(st.integers(0, 20))):
        token = data.draw(st.sampled_from(sorted(speller.allowed(grammar))))
        if token == speller.end or grammar.advance(token):
            return
    for token in grammar.forced():
        assert speller.allowed(grammar) == {token}
        grammar.advance(token)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
@given(data=st.data())
def test_tokens_do_not_depend_on_drafts(speller, data) -> None:
    streams = data.draw(st.integers(1, 3))
    forms = [data.draw(st.sampled_from(sorted(FORMS))) for _ in range(streams)]
    prompts = [prompt_of(data, speller) for _ in range(streams)]
    max_tokens = data.draw(st.integers(1, 60))
    sampling = data.draw(st.sampled_from(SAMPLINGS))
    told: list[Told] = []
    for max_draft_rows in (0, data.draw(st.integers(2, 12))):
        engine, _ = new_engine(
            num_blocks=data.draw(st.sampled_from((34, 200))), max_draft_rows=max_draft_rows
        )
        for stream, (form, begun) in enumerate(zip(forms, prompts, strict=True)):
            grammar = speller.compile(FORMS[form])
            engine.add(
                held(speller, grammar, stream, begun, max_tokens=max_tokens, sampling=sampling)
            )
        told.append(run(engine))
        scheduler = engine.scheduler
        assert scheduler.num_accepted_tokens <= scheduler.num_drafted_tokens
    assert told[0].tokens == told[1].tokens
    assert told[0].reasons == told[1].reasons
    assert not told[0].failed
    assert not told[1].failed


def prompt_of(data: st.DataObject, speller: Speller) -> list[int]:
    """Draw texts as answers have them, ends of answers between them, and what no answer has."""
    parts = st.one_of(
        st.sampled_from(TEXTS).map(speller.spell),
        st.just([speller.end]),
        st.lists(st.integers(0, speller.vocab_size - 1), min_size=1, max_size=3),
    )
    drawn = data.draw(st.lists(parts, min_size=1, max_size=4))
    return [token for part in drawn for token in part]


def test_what_is_copied_within_a_form_costs_no_step(speller: Speller) -> None:
    engine, runner = new_engine(max_draft_rows=6)
    grammar = speller.compile(ResponseFormat("regex", text="(a|b)b{50,60}"))
    engine.add(held(speller, grammar, 1, speller.spell("bbbbbb"), max_tokens=41))
    told = run(engine)
    assert len(told.tokens[1]) == 41
    assert engine.scheduler.num_accepted_tokens == 41 - runner.num_steps
    assert runner.num_steps < 12


def test_what_a_form_forces_costs_no_step_and_is_no_guess(speller: Speller) -> None:
    engine, runner = new_engine(max_draft_rows=6)
    text = "x: 1234567890 zyx"
    grammar = speller.compile(ResponseFormat("regex", text=f"[a-b]{text}[a-b]"))
    engine.add(held(speller, grammar, 1, speller.spell("?"), max_tokens=60))
    told = run(engine)
    said = b"".join(map(speller.pieces.piece, told.tokens[1]))
    assert said[1:-1] == text.encode()
    scheduler = engine.scheduler
    assert scheduler.num_accepted_tokens == scheduler.num_drafted_tokens > 0
    assert runner.num_steps <= len(told.tokens[1]) // 3


def test_choices_of_one_request_draft_by_themselves(speller: Speller) -> None:
    told = []
    for max_draft_rows in (0, 6):
        engine, _ = new_engine(max_draft_rows=max_draft_rows)
        grammar = speller.compile(FORMS["regex"])
        engine.add(held(speller, grammar, 1, speller.spell("ababab"), n=2, max_tokens=40))
        told.append(run(engine))
    assert told[0].tokens == told[1].tokens
    assert engine.scheduler.num_drafted_tokens > 0


def test_calls_of_every_family_take_drafts(tmp_path: Path) -> None:
    family = Family(tokenizer(special=True), tmp_path)
    num_accepted = 0
    for tools in ALL:
        answers = family.answers(tools)
        form = answers.held_calls(prompt("required", SEARCH), [])
        assert form is not None
        walked = (family.walk(answers, form, seed) for seed in range(20))
        earlier = next(call for call in walked if call is not None)
        told = []
        for max_draft_rows in (0, 6):
            engine, _ = new_engine(
                num_blocks=600, context_tokens=2000, max_draft_rows=max_draft_rows
            )
            grammar = family.speller.compile(ResponseFormat("grammar", text=form.grammar))
            engine.add(held(family.speller, grammar, 1, earlier, max_tokens=200))
            told.append(run(engine))
        assert told[0].tokens == told[1].tokens
        assert told[0].reasons == told[1].reasons
        num_accepted += engine.scheduler.num_accepted_tokens
    assert num_accepted > 100


def test_a_grammar_is_told_what_was_chosen_and_nothing_else() -> None:
    engine, _ = new_engine(vocab_size=1, max_draft_rows=6)
    grammar = Countdown(12, vocab_size=1)
    engine.add(replace(request(1, [0] * 5, max_tokens=20), grammar=grammar))
    told = run(engine)
    assert told.reasons == {1: "stop"}
    assert told.tokens[1] == grammar.taken
    assert len(grammar.taken) == 12
    assert engine.scheduler.num_drafted_tokens > 0
