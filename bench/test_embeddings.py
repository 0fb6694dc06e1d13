"""Embeddings of a real encoder: all-MiniLM-L6-v2 on the CPU, all threads, no HTTP.

Embeddings per second are the number of inputs over the time of a round.
"""

import os
from array import array
from itertools import count

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cortex_core.ids import RequestId
from neurond.engine.device import open_device
from neurond.engine.embedding import EmbeddingEngine, EmbeddingRequest
from neurond.models.encoder import Encoder, load_encoder
from tests.fakes.model_cache import MINILM, real_model

INPUT_TOKENS = 32
_numbers = count()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    folder, manifest = real_model(MINILM)
    device = open_device("cpu", threads=len(os.sched_getaffinity(0)), memory_budget_bytes=None)
    return load_encoder(folder, manifest, "float32", device, lambda _: None)


def request(num_inputs: int) -> EmbeddingRequest:
    """Return random inputs of a sentence's length."""
    number = next(_numbers)
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(1000, 30_000, (num_inputs, INPUT_TOKENS), generator=generator).tolist()
    return EmbeddingRequest(RequestId(f"b{number}"), number, [array("i", each) for each in ids])


@pytest.mark.parametrize("num_inputs", [1, 16, 128])
def test_embed(benchmark: BenchmarkFixture, encoder: Encoder, num_inputs: int) -> None:
    """One request of so many inputs of 32 tokens, from the engine's queue to its last vector."""
    engine = EmbeddingEngine(encoder)

    def embed() -> int:
        engine.add(request(num_inputs))
        vectors = 0
        while engine.has_work():
            vectors += len(engine.step().vectors)
        return vectors

    vectors = benchmark.pedantic(embed, rounds=5, iterations=1, warmup_rounds=1)
    assert vectors == num_inputs
    benchmark.extra_info["inputs_per_round"] = num_inputs
