"""What holding answers to a schema costs a step: masks and their progress, no model.

The vocabulary is SmolLM2's, of 49,152 tokens. The tokens taken are those of one plausible answer,
so that masks are those of structure, names, strings and numbers in turn.
"""

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tokenizers import Tokenizer

from cortex_core.canonical import ResponseFormat
from neurond.engine.grammar import GrammarCompiler, TokenGrammar
from neurond.sources.prepared import read_manifest
from tests.fakes.model_cache import SMOLLM2, cached_model

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["city", "town", "village"]},
        "inhabitants": {"type": "integer"},
        "position": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "kind", "inhabitants", "position", "notes"],
    "additionalProperties": False,
}
ANSWER = (
    '{"name": "Chemnitz", "kind": "city", "inhabitants": 248563, "position": [50.83, 12.92], '
    '"notes": ["It lies at the foot of high hills.", "It was once called Karl-Marx-Stadt."]}'
)
FORMAT = msgspec.json.encode(ResponseFormat("json_schema", schema=SCHEMA))


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    folder = cached_model(SMOLLM2)
    manifest = read_manifest(folder)
    return GrammarCompiler(folder, manifest.vocab_size, manifest.eos_token_ids)


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    tokenizer = Tokenizer.from_file(str(cached_model(SMOLLM2) / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(ANSWER, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("num_streams", [1, 16])
def test_mask(
    benchmark: BenchmarkFixture, compiler: GrammarCompiler, tokens: list[int], num_streams: int
) -> None:
    """Masks for so many streams and each step of an answer; a round is one whole answer."""
    first = compiler.compile(FORMAT, ends=(2,))

    def fork() -> tuple[tuple[list[TokenGrammar]], dict[str, object]]:
        return ([first.fork() for _ in range(num_streams)],), {}

    def answer(grammars: list[TokenGrammar]) -> int:
        for token in tokens:
            for grammar in grammars:
                grammar.allowed()
                grammar.advance(token)
        return sum(grammar.is_complete for grammar in grammars)

    rounds = 160 // num_streams
    assert benchmark.pedantic(answer, setup=fork, rounds=rounds, warmup_rounds=1) == num_streams
    benchmark.extra_info["steps_per_round"] = len(tokens)


def test_compile(benchmark: BenchmarkFixture, compiler: GrammarCompiler) -> None:
    """From a schema that was never seen to its first mask."""
    number = 0

    def compile_new() -> TokenGrammar:
        nonlocal number
        number += 1
        schema = SCHEMA | {"title": f"Place {number}"}
        wanted = msgspec.json.encode(ResponseFormat("json_schema", schema=schema))
        return compiler.compile(wanted, ends=(2,))

    benchmark.pedantic(compile_new, rounds=20, warmup_rounds=1)
