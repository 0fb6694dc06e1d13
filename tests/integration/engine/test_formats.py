"""Answers of random models held to a form by either sampler, whatever goes on around them."""

import json
from collections.abc import Callable, Iterator

import pytest
from jsonschema import Draft202012Validator

from cortex_core.canonical import ResponseFormat, SamplingParams
from neurond.engine.batch import SampledToken
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.engine.grammar import TokenGrammar
from neurond.engine.host_runner import HostRunner
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from tests.fakes.engine_runs import EngineUnderTest, ids, make_engine
from tests.fakes.grammar_walks import Speller
from tests.fakes.planned_models import PLANNED, make_model
from tests.fakes.tiny_models import VOCAB_SIZE
from tests.fakes.tokenizers_made import byte_level

MakeEngine = Callable[..., EngineUnderTest]
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "size": {"type": "integer", "minimum": 0, "maximum": 99_999},
        "tags": {"type": "array", "items": {"enum": ["old", "new", "far"]}, "maxItems": 3},
    },
    "required": ["city", "size", "tags"],
    "additionalProperties": False,
}
RECORD = ResponseFormat("json_schema", schema=SCHEMA)
SAMPLED = SamplingParams(temperature=1.3, top_p=0.98)
GREEDY = SamplingParams(temperature=0.0)
PROMPT = list(range(20, 45))
ROOM = 420
DRAFTED = {
    "greedy": GREEDY,
    "sampled": SamplingParams(temperature=1.1, top_p=0.95, logprobs=2),
    "penalised": SamplingParams(
        temperature=0.9, repetition_penalty=1.2, frequency_penalty=0.1, logit_bias={40: 3.0}
    ),
}
COPIED = '{"city": "abab", "size": 12, "tags": ["old", "new", "far"]}'
FORMS = (RECORD, ResponseFormat("json_object"), ResponseFormat("regex", text="(ab|ba|cc){60}"))


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Speller:
    tokenizer = byte_level()
    padding = VOCAB_SIZE - tokenizer.get_vocab_size()
    return Speller(tokenizer, tmp_path_factory.mktemp("tokenizer"), padding=padding)


@pytest.fixture(scope="module")
def torch_engine(tiny) -> MakeEngine:
    return lambda **sizes: make_engine(tiny("llama").loaded, block_tokens=BLOCK_TOKENS, **sizes)


@pytest.fixture(scope="module")
def host_engine() -> Iterator[MakeEngine]:
    kernels = load_kernels()
    assert not isinstance(kernels, NoKernels), kernels.reason
    plan = plan_decoder(make_model(PLANNED["llama"]()))
    assert isinstance(plan, DecoderPlan)
    packed = pack_to_memory(plan, "0123456789abcdef", "int8", kernels, lambda _: None)
    pool = kernels.pool(1)

    def make(*, num_blocks: int = 256, max_draft_rows: int = 0) -> EngineUnderTest:
        pages = kernels.kv_pages(packed.struct, num_blocks)
        runner = HostRunner(
            kernels, pool, packed, pages, max_tokens=128, max_sequences=8, max_rows=12
        )
        config = SchedulerConfig(
            num_blocks=num_blocks,
            context_tokens=512,
            block_tokens=BLOCK_TOKENS,
            max_sequences=8,
            step_tokens=128,
            max_draft_rows=max_draft_rows,
        )
        return EngineUnderTest(Engine(runner, config))

    yield make
    pool.close()


@pytest.fixture(params=["torch_engine", "host_engine"])
def new_engine(request: pytest.FixtureRequest) -> MakeEngine:
    made: MakeEngine = request.getfixturevalue(request.param)
    return made


def ask(
    engine: EngineUnderTest,
    speller: Speller,
    grammar: TokenGrammar,
    sampling: SamplingParams = SAMPLED,
    **changes: object,
) -> int:
    ends = {"eos_token_ids": (speller.end,), "grammar": grammar}
    return engine.submit(PROMPT, ROOM, sampling, **ends, **changes)


def text_of(speller: Speller, tokens: list[int]) -> bytes:
    return b"".join(map(speller.pieces.piece, tokens))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_answers_are_instances_of_their_schema(
    new_engine: MakeEngine, speller: Speller, sampling: SamplingParams
) -> None:
    engine = new_engine()
    streams = [
        ask(engine, speller, speller.compile(RECORD), sampling, seed=seed) for seed in range(8)
    ]
    answers = engine.finish()
    for stream in streams:
        assert engine.reasons[stream] == "stop"
        value = json.loads(text_of(speller, ids(answers[stream])))
        Draft202012Validator(SCHEMA).validate(value)


def test_a_form_does_not_touch_its_neighbours(new_engine: MakeEngine, speller: Speller) -> None:
    free = SamplingParams(temperature=1.0, logprobs=3, ignore_eos=True)
    alone = new_engine()
    stream = alone.submit(PROMPT[:9], 30, free)
    expected = alone.finish()[stream]
    engine = new_engine()
    ask(engine, speller, speller.compile(RECORD))
    stream = engine.submit(PROMPT[:9], 30, free)
    ask(engine, speller, speller.compile(RECORD), GREEDY)
    assert ids(engine.finish()[stream]) == ids(expected)


def test_preemption_changes_no_answer(new_engine: MakeEngine, speller: Speller) -> None:
    answers = []
    for num_blocks in (256, 16):
        engine = new_engine(num_blocks=num_blocks)
        for seed in range(6):
            ask(engine, speller, speller.compile(RECORD), seed=seed)
        answers.append({stream: ids(tokens) for stream, tokens in engine.finish().items()})
        assert (engine.engine.scheduler.num_preemptions > 0) == (num_blocks == 16)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", DRAFTED)
def test_drafts_change_no_answer(new_engine: MakeEngine, speller: Speller, name: str) -> None:
    prompt = [*speller.spell(COPIED), speller.end] * 2
    num_accepted = 0
    for wanted in FORMS:
        answers = []
        for max_draft_rows in (0, 6):
            engine = new_engine(max_draft_rows=max_draft_rows)
            held = {"eos_token_ids": (speller.end,), "grammar": speller.compile(wanted)}
            stream = engine.submit(prompt, 120, DRAFTED[name], **held)
            answers.append((engine.finish()[stream], engine.reasons[stream]))
        (plain, reason), (drafted, other_reason) = answers
        assert ids(drafted) == ids(plain)
        assert other_reason == reason
        # Torch's products of one row differ from those of several in the last bits.
        assert logprobs(drafted) == pytest.approx(logprobs(plain), abs=1e-4)
        num_accepted += engine.engine.scheduler.num_accepted_tokens
    assert num_accepted > 0


def logprobs(tokens: list[SampledToken]) -> list[float]:
    return [token.logprob or 0.0 for token in tokens]


def test_preemption_and_drafts_change_no_answer(new_engine: MakeEngine, speller: Speller) -> None:
    prompt = [*speller.spell(COPIED), speller.end]
    answers = []
    for sizes in ({}, {"num_blocks": 22, "max_draft_rows": 12}):
        engine = new_engine(**sizes)
        for seed in range(4):
            held = {"eos_token_ids": (speller.end,), "grammar": speller.compile(FORMS[2])}
            engine.submit(prompt, 100, SAMPLED, seed=seed, **held)
        answers.append({stream: ids(tokens) for stream, tokens in engine.finish().items()})
    assert answers[0] == answers[1]
    assert engine.engine.scheduler.num_preemptions > 0
    assert engine.engine.scheduler.num_accepted_tokens > 0


@pytest.mark.parametrize("kept", [1, 7, 20])
def test_a_stream_goes_on_elsewhere_with_the_same_answer(
    new_engine: MakeEngine, speller: Speller, kept: int
) -> None:
    engine = new_engine()
    stream = ask(engine, speller, speller.compile(RECORD), seed=5)
    whole = ids(engine.finish()[stream])
    replayed = whole[:kept]
    grammar = speller.compile(RECORD, replayed=replayed)
    other = new_engine()
    stream = ask(other, speller, grammar, seed=5, replayed=replayed)
    assert replayed + ids(other.finish()[stream]) == whole


def test_an_answer_that_is_too_long_is_cut_within_its_form(
    new_engine: MakeEngine, speller: Speller
) -> None:
    engine = new_engine()
    grammar = speller.compile(RECORD)
    stream = engine.submit(PROMPT, 6, SAMPLED, grammar=grammar, eos_token_ids=(speller.end,))
    begun = text_of(speller, ids(engine.finish()[stream]))
    assert engine.reasons[stream] == "length"
    assert begun.strip().startswith(b"{")


def test_log_probabilities_are_the_models_own(new_engine: MakeEngine, speller: Speller) -> None:
    engine = new_engine()
    told = SamplingParams(temperature=0.0, logprobs=2)
    stream = ask(engine, speller, speller.compile(ResponseFormat("regex", text="xy")), told)
    first, second = engine.finish()[stream]
    for token in (first, second):
        assert token.logprob is not None
        assert token.logprob <= max(value for _, value in token.top)
    assert text_of(speller, ids([first, second])) == b"xy"
    assert {first.token_id} - {token for token, _ in first.top}
