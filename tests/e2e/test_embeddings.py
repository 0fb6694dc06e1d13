"""Embeddings of real models through the whole fleet, with the official SDK."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from tests.fakes.fleet_process import FleetProcess
from tests.fakes.model_cache import MINILM, SMOLLM2, cached_model

pytestmark = pytest.mark.model

Vectors = NDArray[np.float32]
TEXTS = [
    "A dog runs over the field.",
    "A puppy is running across the meadow.",
    "The central bank raised interest rates again.",
    "Interest went up once more, the bank said.",
    "x",
    "A very long sentence, " * 20,
]


@pytest.fixture
def cold(fleet: FleetProcess) -> Iterator[FleetProcess]:
    """The fleet with MiniLM on disk and not in memory, before and after."""
    cached_model(MINILM)
    fleet.unload(MINILM)
    yield fleet
    fleet.unload(MINILM)


def ask(client: openai.OpenAI, texts: Any, model: str = MINILM, **options: Any) -> Vectors:
    answer = client.embeddings.create(model=model, input=texts, **options)
    return np.array([each.embedding for each in answer.data], np.float32)


def expected(texts: list[str]) -> Vectors:
    """Return what transformers itself comes to."""
    folder = cached_model(MINILM)
    model = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    vectors: Vectors = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return vectors


def test_minilm_is_loaded_by_name_beside_smollm2_and_right(cold: FleetProcess) -> None:
    vectors = ask(cold.openai, TEXTS, model="minilm")
    assert np.allclose(vectors, expected(TEXTS), atol=1e-5)
    likeness = vectors @ vectors.T
    assert min(likeness[0, 1], likeness[2, 3]) > 0.6
    assert likeness[:2, 2:4].max() < 0.2
    assert cold.model(SMOLLM2).status == "ready"

    one_by_one = np.concatenate([ask(cold.openai, text) for text in TEXTS])
    assert np.allclose(one_by_one, vectors, atol=1e-5)
    direct = ask(cold.node_openai, TEXTS)
    assert np.allclose(direct, vectors, atol=1e-5)
    short = ask(cold.openai, TEXTS, dimensions=64)
    cut = vectors[:, :64]
    assert np.allclose(short, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)

    floats = ask(cold.openai, TEXTS, encoding_format="float")
    body = {"model": MINILM, "input": TEXTS, "encoding_format": "base64"}
    coded = cold.api.post("/v1/embeddings", json=body).json()
    raw = [base64.b64decode(each["embedding"]) for each in coded["data"]]
    assert np.array_equal(floats, np.stack([np.frombuffer(each, "<f4") for each in raw]))
    tokens = AutoTokenizer.from_pretrained(cached_model(MINILM))(TEXTS).input_ids
    assert coded["usage"]["prompt_tokens"] == sum(map(len, tokens))
    assert np.allclose(ask(cold.openai, tokens), vectors, atol=1e-5)


def test_wrong_questions_are_refused_with_the_reason(cold: FleetProcess) -> None:
    with pytest.raises(openai.BadRequestError, match="it gives embeddings") as caught:
        cold.openai.completions.create(model=MINILM, prompt="hi")
    assert caught.value.param == "model"
    assert cold.model(MINILM).status == "unloaded"
    with pytest.raises(openai.BadRequestError, match=r"input\[1\] is too long.* > 256") as caught:
        ask(cold.openai, ["short", "long " * 300])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="have 384"):
        ask(cold.openai, "x", dimensions=385)


def test_a_decoder_gives_vectors_of_its_last_states(fleet: FleetProcess) -> None:
    vectors = ask(fleet.openai, TEXTS[:4], model="small")
    assert vectors.shape == (4, 576)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.allclose(ask(fleet.openai, TEXTS[2], model="small"), vectors[2], atol=1e-3)
    assert (vectors @ vectors.T)[0, 1:].max() < 0.999
    assert "embeddings" in fleet.openai.models.retrieve("small").model_dump()["capabilities"]
