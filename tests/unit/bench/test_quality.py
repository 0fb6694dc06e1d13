"""Teacher-forced comparison: what equal logits give, and what known differences do."""

import argparse
import math

import pytest
import torch

from bench.hardware import hardware
from bench.quality import __main__ as program
from bench.quality.compare import Comparison
from bench.quality.texts import texts

TOKENS = torch.tensor([0, 1, 2, 3])
ORACLE = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def compared(logits: torch.Tensor, oracle: torch.Tensor = ORACLE) -> Comparison:
    comparison = Comparison()
    comparison.add(logits, oracle, TOKENS)
    return comparison


def test_equal_logits_differ_in_nothing() -> None:
    found = compared(ORACLE.clone())
    assert found.positions == 3
    assert (found.same_share, found.perplexity_ratio) == (1.0, 1.0)
    assert (found.logit_error, found.mean_divergence) == (0.0, 0.0)


def test_what_changes_no_probability_is_no_error() -> None:
    found = compared(ORACLE + 3.0)
    assert found.logit_error == pytest.approx(0.0, abs=1e-6)
    assert found.perplexity_ratio == pytest.approx(1.0)


def test_the_last_position_predicts_nothing_that_is_known() -> None:
    other = ORACLE.clone()
    other[-1] = -other[-1]
    assert compared(other).logit_error == 0.0


def test_perplexities_are_those_of_the_next_tokens() -> None:
    oracle = torch.zeros(4, 8)
    sure = torch.zeros(4, 8)
    sure[torch.arange(3), TOKENS[1:]] = 100.0
    found = compared(sure, oracle)
    assert found.oracle_perplexity == pytest.approx(8.0)
    assert found.perplexity_ratio == pytest.approx(1 / 8)
    assert found.mean_divergence > math.log(8)


def test_opposite_logits_agree_nowhere() -> None:
    found = compared(-ORACLE)
    assert found.same_share == 0.0
    assert found.logit_error == pytest.approx(2.0)


def test_sequences_add_up() -> None:
    found = compared(ORACLE.clone())
    found.add(-ORACLE, ORACLE, TOKENS)
    assert found.positions == 6
    assert found.same_share == 0.5


def test_the_texts_are_there_and_long_enough() -> None:
    assert min(len(text) for text in texts().values()) > 10_000


@pytest.mark.parametrize("models", [None, ["pypi:a", "pypi:b"]])
def test_the_table_names_its_machine_and_its_command(models: list[str] | None) -> None:
    options = argparse.Namespace(models=models or program.MODELS, length=64, windows=2)
    told = program.circumstances_of(options, "avx2")
    chosen = " --models pypi:a pypi:b" if models else ""
    assert f", {hardware()}; variant avx2, 2 sequences of 64 tokens from " in told
    assert told.endswith(f"By `python -m bench.quality{chosen} --length 64 --windows 2 --write`.")
