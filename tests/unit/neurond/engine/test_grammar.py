"""Which tokens may come next, over a vocabulary of bytes."""

import json
from array import array

import pytest

from cortex_core.canonical import ResponseFormat, SamplingParams
from cortex_core.errors import InvalidRequest
from neurond.engine.grammar import MAX_COMPILED, GrammarCompiler
from neurond.engine.masks import NO_MASKS, masks_of
from tests.fakes.grammar_walks import Speller
from tests.fakes.sampler_rows import row
from tests.fakes.tokenizers_made import BOS, byte_fallback, byte_level

DIGITS = ResponseFormat("regex", text="[0-9]{1,3}")
LIST = ResponseFormat("grammar", text='start: item ("," item)*\nitem: "a" | "b"\n')


@pytest.fixture(scope="module", params=[byte_level, byte_fallback], ids=lambda make: make.__name__)
def speller(request, tmp_path_factory):
    return Speller(request.param(), tmp_path_factory.mktemp("model"), padding=40)


def texts(speller: Speller, tokens: set[int]) -> set[bytes]:
    return {speller.pieces.piece(token) for token in tokens if token != speller.end}


def test_only_what_keeps_the_form_may_come_next(speller):
    grammar = speller.compile(LIST)
    assert texts(speller, speller.allowed(grammar)) == {b"a", b"b", *prefixes(speller, b"a")}
    assert not grammar.advance(speller.spell("a")[0])
    assert texts(speller, speller.allowed(grammar)) == {b","}


def prefixes(speller: Speller, first: bytes) -> set[bytes]:
    """Longer tokens that LIST allows: none, as no word of the tokenizer alternates."""
    return {piece for piece in speller.tokens if piece.startswith(first + b",")}


def test_the_end_is_allowed_where_the_form_is_whole_and_only_there(speller):
    grammar = speller.compile(LIST)
    assert speller.end not in speller.allowed(grammar)
    grammar.advance(speller.spell("a")[0])
    assert speller.end in speller.allowed(grammar)
    assert grammar.advance(speller.end)
    assert grammar.is_complete


def test_an_answer_is_complete_when_nothing_can_follow(speller):
    grammar = speller.compile(DIGITS)
    assert [grammar.advance(token) for token in speller.spell("123")] == [False, False, True]


def test_every_end_ends_the_answer(speller):
    other = speller.spell("!")[0]
    grammar = speller.compile(DIGITS, ends=(other,))
    assert other not in speller.allowed(grammar)
    grammar.advance(speller.spell("1")[0])
    allowed = speller.allowed(grammar)
    assert {other, speller.end} <= allowed
    assert grammar.advance(other)


def test_tokens_that_are_no_text_are_never_allowed(speller):
    grammar = speller.compile(ResponseFormat("regex", text="(.|\n)*"))
    allowed = speller.allowed(grammar)
    assert len(allowed) > 150
    assert max(allowed) < speller.vocab_size - 40
    begin = next(i for i in range(speller.vocab_size) if speller.pieces.content(i) == BOS.encode())
    assert begin not in allowed


def test_a_fork_goes_its_own_way(speller):
    grammar = speller.compile(DIGITS)
    grammar.advance(speller.spell("1")[0])
    fork = grammar.fork()
    assert [fork.advance(token) for token in speller.spell("23")] == [False, True]
    assert not grammar.is_complete
    assert texts(speller, speller.allowed(grammar)) >= {b"%d" % digit for digit in range(10)}


def test_replayed_output_brings_a_grammar_to_where_it_was(speller):
    tokens = speller.spell("a,b")
    whole = speller.compile(LIST)
    for token in tokens:
        whole.advance(token)
    replayed = speller.compile(LIST, replayed=tokens)
    assert speller.allowed(replayed) == speller.allowed(whole)
    assert speller.compile(DIGITS, replayed=speller.spell("999")).is_complete
    assert speller.compile(DIGITS, replayed=[*speller.spell("9"), speller.end]).is_complete


def test_replayed_output_of_another_form_is_refused(speller):
    with pytest.raises(InvalidRequest, match="cannot hold the answer to response_format"):
        speller.compile(DIGITS, replayed=speller.spell("a"))


def test_where_nothing_can_be_said_only_the_end_is_allowed(speller):
    grammar = speller.compile(ResponseFormat("regex", text="()"))
    assert speller.allowed(grammar) == {speller.end}
    assert grammar.advance(speller.end)


@pytest.mark.parametrize("seed", range(5))
def test_json_object_gives_an_object(speller, seed):
    answer = speller.walk(speller.compile(ResponseFormat("json_object")), seed)
    assert isinstance(json.loads(answer), dict)


BAD = {
    "no type": ResponseFormat("json_schema", schema={"type": "nothing"}),
    "no schema": ResponseFormat("json_schema", schema={"properties": 3}),
    "unknown keyword": ResponseFormat(
        "json_schema", schema={"type": "array", "uniqueItems": True, "items": {"type": "integer"}}
    ),
    "unknown reference": ResponseFormat("json_schema", schema={"$ref": "#/$defs/absent"}),
    "remote reference": ResponseFormat("json_schema", schema={"$ref": "http://a.example/s.json"}),
    "contradiction": ResponseFormat(
        "json_schema", schema={"type": "integer", "minimum": 3, "maximum": 2}
    ),
    "a number that is not exact": ResponseFormat("json_schema", schema={"enum": [[2**53 + 1]]}),
    "bad pattern": ResponseFormat("json_schema", schema={"type": "string", "pattern": "("}),
    "bad regex": ResponseFormat("regex", text="(a"),
    "look-around": ResponseFormat("regex", text="(?=a)b"),
    "deep regex": ResponseFormat("regex", text="(" * 50_000 + ")" * 50_000),
    "no grammar": ResponseFormat("grammar", text="start: ???"),
    "no start": ResponseFormat("grammar", text='other: "a"'),
    "unknown rule": ResponseFormat("grammar", text="start: absent"),
    "deep grammar": ResponseFormat("grammar", text="start: " + "(" * 50_000 + '"a"' + ")" * 50_000),
    "costly grammar": ResponseFormat(
        "grammar", text="start: A\nA: /.*a.{30}/ & /.*b.{35}/ & ~/.*c.{20}d/"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_kept_to_is_refused(speller, name):
    with pytest.raises(InvalidRequest) as caught:
        speller.compile(BAD[name])
    assert caught.value.param == "response_format"
    assert caught.value.message.startswith("cannot hold the answer to response_format: ")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"oneOf": [{"type": "string"}, {"minLength": 3}]}, "oneOf is not supported; say anyOf"),
        ({"not": {}}, 'the schema has what is not supported: "not"'),
        ({"$ref": "#/$defs/absent"}, "$ref leads nowhere: Pointer '/$defs/absent' does not exist"),
        ({"$ref": "other.json"}, "names other.json, and nothing outside of the schema is read"),
        ({"type": "integer", "minimum": 2**64}, "a minimum or maximum is beyond what can be kept"),
        ({"pattern": "(?=a)b"}, "pattern or patternProperties: regex parse error: (?=a)b"),
        (
            {"patternProperties": {"a": {"type": "null"}, "b": {"type": "string"}}},
            "patternProperties: regexes /a/ and /b/ are not disjoint",
        ),
        ({"multipleOf": 0}, "multipleOf must be a number above 0"),
    ],
)
def test_a_refusal_names_the_keyword(speller, schema, told):
    with pytest.raises(InvalidRequest) as caught:
        speller.schema(schema)
    assert told in caught.value.message


def test_a_schema_that_is_not_strict_leaves_out_what_is_not_supported(speller):
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}, "maxItems": 2}
    grammar = speller.schema(schema, strict=False)
    answer = speller.walk(grammar, 1)
    assert isinstance(json.loads(answer), list)


def test_a_tokenizer_that_cannot_be_read_fails_the_request(tmp_path):
    compiler = GrammarCompiler(tmp_path, 100, ())
    with pytest.raises(InvalidRequest, match="tokenizer cannot be used"):
        compiler.compile(b'{"kind":"json_object"}', ends=())


def test_formats_are_kept_compiled_and_do_not_mix(speller):
    for number in (*range(MAX_COMPILED + 3), 0):
        grammar = speller.compile(ResponseFormat("regex", text=f"a{{{number + 1}}}"))
        taken = [grammar.advance(token) for token in speller.spell("a" * (number + 1))]
        assert taken == [False] * number + [True]


def test_a_token_that_cannot_stand_here_fails_the_row(speller):
    grammar = speller.compile(DIGITS)
    assert not grammar.advance(speller.spell("x")[0])
    assert not grammar.is_complete
    free, held = row(SamplingParams()), row(SamplingParams())
    held.grammar = grammar
    masks = masks_of([free, held, free])
    assert masks.allowed == [None, None, None]
    assert [error.param for error in masks.failed.values()] == ["response_format"]
    assert list(masks.failed) == [1]
    assert masks.settle([1, 2, 3]) == [1, masks.failed[1], 3]


def test_a_mask_that_takes_too_long_fails_its_request(speller, monkeypatch):
    monkeypatch.setattr("neurond.engine.grammar.MAX_MASK_S", 0.0)
    grammar = speller.compile(LIST)
    with pytest.raises(InvalidRequest, match="takes too long") as caught:
        grammar.allowed()
    assert caught.value.param == "response_format"


def test_rows_without_a_grammar_have_no_masks():
    assert masks_of([row(SamplingParams())] * 3) is NO_MASKS


def test_a_mask_has_a_bit_for_every_logit(speller):
    allowed = speller.compile(DIGITS).allowed()
    assert isinstance(allowed, array)
    assert allowed.itemsize == 4
    assert 0 <= 32 * len(allowed) - speller.vocab_size < 32
