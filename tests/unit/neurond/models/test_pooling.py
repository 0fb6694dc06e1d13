"""From states to vectors."""

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cortex_core.errors import ErrorInfo
from neurond.engine.embedding import EmbedInput
from neurond.models.pooling import pool, vectors_of
from neurond.sources.prepared import Pooling

STATES = np.array([[1.0, 2], [3, 0], [5, 4]], np.float32)
MODES = st.sampled_from(["mean", "max", "cls", "last"])
SOME_STATES = arrays(np.float32, (3, 8), elements=st.floats(-100, 100, width=32))


@pytest.mark.parametrize(
    ("mode", "vector"),
    [("mean", [3.0, 2]), ("max", [5, 4]), ("cls", [1, 2]), ("last", [5, 4])],
)
def test_poolings_are_what_they_are_called(mode: str, vector: list[float]) -> None:
    assert pool(STATES, Pooling(mode, normalize=False)).tolist() == vector


@given(SOME_STATES, MODES, st.booleans(), st.integers(1, 8))
def test_dimensions_keep_the_direction_and_give_the_length_of_one(
    states: np.ndarray, mode: str, normalize: bool, dimensions: int
) -> None:
    whole = pool(states, Pooling(mode, normalize=False))
    short = pool(states, Pooling(mode, normalize=normalize), dimensions)
    length = np.linalg.norm(whole[:dimensions].astype(np.float64))
    assert len(short) == dimensions
    assert np.allclose(short * length, whole[:dimensions], atol=1e-3)
    assert np.isclose(np.linalg.norm(short), 1.0 if length > 0 else 0.0, atol=1e-3)


def test_each_input_has_its_own_tokens_and_dimensions() -> None:
    inputs = [EmbedInput(array("i", [1, 2])), EmbedInput(array("i", [3]), 1)]
    one, two = vectors_of(STATES, inputs, Pooling("last", normalize=False))
    assert one == np.array([3, 0], "<f4").tobytes()
    assert two == np.array([1], "<f4").tobytes()


def test_a_vector_that_is_not_finite_is_told() -> None:
    broken = np.array([[1.0, np.nan]], np.float32)
    (told,) = vectors_of(broken, [EmbedInput(array("i", [1]))], Pooling("mean", normalize=True))
    assert isinstance(told, ErrorInfo)
    assert "not finite" in told.message
