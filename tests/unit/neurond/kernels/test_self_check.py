from typing import get_args

import numpy as np
import pytest

from neurond.kernels import abi, gate_check
from neurond.kernels.attention_check import NUM_TOKENS, PIECES, wrong_attention
from neurond.kernels.gate_check import wrong_gate
from neurond.kernels.library import Kernels
from neurond.kernels.memory import KvFormat
from neurond.kernels.self_check import wrong_product
from neurond.kernels.variants import VARIANTS, NoKernels, load_kernels


class Faulty(Kernels):
    """A library that errs in the last element of products in one format, of so many rows."""

    def __init__(self, kernels: Kernels, weight_format: str, rows: int) -> None:
        super().__init__(kernels.variant, kernels.path, kernels._library)
        self._format, self._rows = abi.FORMATS[weight_format], rows

    def linear_apply(self, pool, linear, x):
        y = super().linear_apply(pool, linear, x)
        if linear.format == self._format and len(x) == self._rows:
            y[-1, -1] += 1
        return y


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request) -> Kernels:
    found = load_kernels(request.param)
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    return found


def test_every_variant_that_runs_here_is_right(kernels):
    assert wrong_product(kernels) is None
    assert wrong_attention(kernels) is None
    assert wrong_gate(kernels) is None


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("weight_format", abi.FORMATS)
def test_an_error_in_one_element_is_seen(kernels, weight_format, rows):
    wrong = wrong_product(Faulty(kernels, weight_format, rows))
    assert wrong == f"it computes {weight_format} products wrongly on this processor"


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_rows_that_round_otherwise_alone_are_seen(kernels, monkeypatch, rows):
    apply = Kernels.linear_apply

    def otherwise(self, pool, linear, x):
        y = apply(self, pool, linear, x)
        if len(x) == rows and (y != y.round()).any():  # whole numbers are right in any order
            y[0, 0] = np.nextafter(y[0, 0], np.float32(np.inf))
        return y

    monkeypatch.setattr(Kernels, "linear_apply", otherwise)
    assert "number of rows" in (wrong_product(kernels) or "")


class FaultyAttention(Kernels):
    """A library that takes one token for another of the prompt, over pages of one format."""

    def __init__(self, kernels: Kernels, kv_format: KvFormat, place: int) -> None:
        super().__init__(kernels.variant, kernels.path, kernels._library)
        self._kv_format, self._place = kv_format, place

    def states(self, pool, model, columns, kv, scratch, states):
        if kv.kv_format == self._kv_format and self._place in columns.positions:
            columns.token_ids = columns.token_ids[:]
            columns.token_ids[self._place - columns.positions[0]] = NUM_TOKENS - 1
        super().states(pool, model, columns, kv, scratch, states)


@pytest.mark.parametrize("place", [3, PIECES[0] + 2])
@pytest.mark.parametrize("kv_format", get_args(KvFormat))
def test_an_error_in_keys_and_values_is_seen(kernels, kv_format, place):
    wrong = wrong_attention(FaultyAttention(kernels, kv_format, place))
    assert wrong == f"it computes attention over {kv_format} wrongly on this processor"


def test_a_number_that_is_none_is_seen(kernels, monkeypatch):
    def broken(self, pool, model, columns, kv, scratch, states):
        states[:] = float("nan")

    monkeypatch.setattr(Kernels, "states", broken)
    assert wrong_attention(kernels) is not None
    assert wrong_gate(kernels) is not None


class Otherwise(Kernels):
    """A library whose steps of so many tokens over pages of one format err in a last bit."""

    def __init__(self, kernels: Kernels, kv_format: KvFormat, rows: int) -> None:
        super().__init__(kernels.variant, kernels.path, kernels._library)
        self._kv_format, self._rows = kv_format, rows

    def states(self, pool, model, columns, kv, scratch, states):
        super().states(pool, model, columns, kv, scratch, states)
        if kv.kv_format == self._kv_format and len(columns.token_ids) == self._rows:
            states[-1, -1] = np.nextafter(states[-1, -1], np.float32(np.inf))


@pytest.mark.parametrize("rows", PIECES)
@pytest.mark.parametrize("kv_format", get_args(KvFormat))
def test_attention_that_rounds_otherwise_over_few_rows_is_seen(kernels, kv_format, rows):
    wrong = wrong_attention(Otherwise(kernels, kv_format, rows)) or ""
    assert f"bits of attention over {kv_format} depend on its number of rows" in wrong


@pytest.mark.parametrize("rows", gate_check.PIECES)
def test_a_gate_that_rounds_otherwise_over_few_rows_is_seen(kernels, rows):
    wrong = wrong_gate(Otherwise(kernels, "bf16", rows)) or ""
    assert "bits of silu between products depend on its number of rows" in wrong


@pytest.mark.parametrize("activation", abi.ACTIVATIONS)
def test_another_activation_is_seen(kernels, monkeypatch, activation):
    assert set(gate_check.FORMULAS) == set(abi.ACTIVATIONS)
    monkeypatch.setitem(abi.ACTIVATIONS, activation, abi.ACTIVATIONS[activation] ^ 1)
    assert (
        wrong_gate(kernels)
        == f"it computes {activation} between products wrongly on this processor"
    )


def test_one_element_between_two_products_is_seen(kernels, monkeypatch):
    pack = Kernels.pack_rows

    def without_one(self, linear, first_row, rows):
        if linear.in_features == gate_check.GATES:
            rows = rows.copy()
            rows[:, 77] = 0
        pack(self, linear, first_row, rows)

    monkeypatch.setattr(Kernels, "pack_rows", without_one)
    assert "between products wrongly" in (wrong_gate(kernels) or "")
