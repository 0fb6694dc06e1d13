"""Matrices that stay in their files: what is computed with them, and what of them that reads."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from neurond.models import file_matrix
from neurond.models.file_matrix import (
    SKETCH_ROWS,
    FileMatrix,
    Sketched,
    read_numbered,
    read_rows,
)

ROWS, COLUMNS = 40, 8


class Stored:
    """A matrix of random numbers, and which of its rows were read."""

    def __init__(self) -> None:
        self.values = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
        self.read: list[tuple[int, int]] = []
        self.matrix = FileMatrix(self.values.shape, self.read_rows)

    def read_rows(self, first: int, stop: int) -> torch.Tensor:
        self.read.append((first, stop))
        return self.values[first:stop]


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.mark.parametrize("inference", [False, True])
def test_a_parameter_and_its_copies_read_nothing(stored, inference):
    linear = nn.Linear(COLUMNS, ROWS, bias=False)
    with torch.inference_mode(inference):
        linear.weight = nn.Parameter(stored.matrix, requires_grad=False)
        detached = linear.weight.detach()
        again = nn.Parameter(detached, requires_grad=False)
        whole = copy.deepcopy(linear, {id(linear.weight): again})
    assert whole.weight is again
    assert not stored.read
    assert (again.shape, again.dtype, again.device.type) == ((ROWS, COLUMNS), torch.float32, "cpu")
    assert isinstance(again, nn.Parameter)
    assert not again.is_meta


@pytest.mark.parametrize("inference", [False, True])
def test_products_are_those_of_the_values(stored, inference):
    x = torch.randn(3, COLUMNS)
    with torch.inference_mode(inference):
        assert torch.equal(functional.linear(x, stored.matrix), functional.linear(x, stored.values))
        assert torch.equal(x @ stored.matrix.T, x @ stored.values.T)
        assert torch.equal(stored.matrix[None].sum(1), stored.values[None].sum(1))
    assert set(stored.read) == {(0, ROWS)}


@pytest.mark.parametrize("inference", [False, True])
def test_an_embedding_reads_the_rows_it_is_asked_for(stored, inference):
    ids = torch.tensor([[7, 3, 4, 3]])
    with torch.inference_mode(inference):
        assert torch.equal(functional.embedding(ids, stored.matrix), stored.values[ids])
    assert stored.read == [(3, 5), (7, 8)]


def test_matrices_are_compared_piece_by_piece(stored, monkeypatch):
    monkeypatch.setattr(file_matrix, "COMPARED_ROWS", 16)
    other = Stored()
    assert torch.equal(stored.matrix, other.matrix)
    assert stored.read == other.read == [(0, 16), (16, 32), (32, ROWS)]
    assert torch.equal(stored.values, stored.matrix)
    other.values[20] = 0
    stored.read.clear()
    assert not torch.equal(stored.matrix, other.matrix)
    assert stored.read == [(0, 16), (16, 32)]
    assert not torch.equal(stored.matrix, stored.values[1:])


def test_rows_are_read_alike_wherever_they_are(stored):
    numbers = torch.tensor([9, 8, 0])
    for matrix in (stored.matrix, stored.values, stored.values.to(torch.float64)):
        assert torch.equal(read_rows(matrix, 4, 9), stored.values[4:9])
        assert torch.equal(read_numbered(matrix, numbers), stored.values[numbers])
        assert read_numbered(matrix, numbers[:0]).shape == (0, COLUMNS)
    assert stored.read == [(4, 9), (0, 1), (8, 10)]


def test_a_sketch_of_a_product_reads_few_rows_and_has_its_shape(stored):
    x, bias = torch.randn(1, 3, COLUMNS), torch.randn(ROWS)
    with Sketched():
        found = functional.linear(x, stored.matrix, bias) - bias
        named = functional.linear(input=x, weight=stored.values, bias=bias)
        assert torch.equal(named, functional.linear(x, stored.values, bias))
    assert stored.read == [(0, SKETCH_ROWS)]
    assert found.shape == (1, 3, ROWS)
    true = functional.linear(x, stored.values[:SKETCH_ROWS])
    torch.testing.assert_close(found[..., :SKETCH_ROWS], true)
    torch.testing.assert_close(found[..., 2 * SKETCH_ROWS :], true[..., : ROWS - 2 * SKETCH_ROWS])
