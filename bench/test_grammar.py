"""What holding answers to a schema costs a token, without a model: `us_per_token` is of the median.

`test_mask` has masks and their progress alone; `test_choice` has the choice of tokens by the
kernel, too, held to a schema and free, so that the difference is the whole cost.

The vocabulary is SmolLM2's, of 49,152 tokens. The tokens taken are those of one plausible answer,
so that masks are those of structure, names, strings and numbers in turn.
"""

import os

import msgspec
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tokenizers import Tokenizer

from cortex_core.canonical import ResponseFormat, SamplingParams
from neurond.engine.grammar import GrammarCompiler, TokenGrammar
from neurond.engine.host_sampler import sample_on_host
from neurond.kernels.memory import address_of
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.sources.prepared import read_manifest
from tests.fakes.model_cache import SMOLLM2, cached_model
from tests.fakes.sampler_rows import row

VOCAB_SIZE = 49_152

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
    tell(benchmark, num_streams * len(tokens))


def tell(benchmark: BenchmarkFixture, num_tokens: int) -> None:
    """Note what one of a round's tokens takes."""
    assert benchmark.stats is not None
    benchmark.extra_info["us_per_token"] = round(1e6 * benchmark.stats.stats.median / num_tokens, 1)


@pytest.mark.parametrize("num_streams", [1, 16])
@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_choice(
    benchmark: BenchmarkFixture,
    compiler: GrammarCompiler,
    tokens: list[int],
    num_streams: int,
    held: bool,
) -> None:
    """Greedy tokens for so many streams at each step of an answer, from logits made before."""
    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        pytest.skip(kernels.reason)
    first = compiler.compile(FORMAT, ends=(2,))
    rows = [row(SamplingParams(temperature=0.0), seed=seed) for seed in range(num_streams)]
    logits = np.random.default_rng(1).standard_normal((num_streams, VOCAB_SIZE), np.float32)
    used = np.empty_like(logits)

    def fork() -> tuple[tuple[list[TokenGrammar]], dict[str, object]]:
        return ([first.fork() for _ in range(num_streams if held else 0)],), {}

    with kernels.pool(len(os.sched_getaffinity(0))) as pool:
        kernel = kernels.sampler(pool, VOCAB_SIZE)

        def choose(grammars: list[TokenGrammar]) -> int:
            for token in tokens:
                np.copyto(used, logits)
                masks = [grammar.allowed() for grammar in grammars]
                chosen = sample_on_host(kernel, address_of(used), rows, masks)
                for grammar in grammars:
                    grammar.advance(token)
            return len(chosen)

        assert benchmark.pedantic(choose, setup=fork, rounds=40, warmup_rounds=2) == num_streams
    tell(benchmark, num_streams * len(tokens))


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
