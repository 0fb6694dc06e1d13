"""The sampler against distributions written as they are defined."""

from collections import Counter

import msgspec
import pytest
import torch

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from neurond.engine import sampler
from neurond.engine.batch import Row
from neurond.engine.masks import Masks
from neurond.engine.randomness import uniform
from neurond.engine.sampler import sample
from tests.fakes.sampler_rows import mask_of, row

VOCAB = 200
GREEDY = SamplingParams(temperature=0.0)


def logits_of(rows: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def tokens_of(logits: torch.Tensor, rows: list[Row]) -> list[int]:
    return [token.token_id for token in sample(logits.clone(), rows).fetch(rows)]


def kept_by(logits: torch.Tensor, sampling: SamplingParams) -> torch.Tensor:
    """Probabilities after temperature and filters, by sorting everything."""
    probs = (logits.double() / (sampling.temperature or 1.0)).softmax(-1)
    order = probs.argsort(descending=True)
    kept = torch.ones(len(probs), dtype=torch.bool)
    if sampling.top_k is not None:
        kept[order[sampling.top_k :]] = False
    if sampling.top_p is not None:
        left = torch.where(kept, probs, 0.0) / probs[kept].sum()
        before = left[order].cumsum(0) - left[order]
        kept[order[before >= sampling.top_p]] = False
    if sampling.min_p is not None:
        kept &= probs >= sampling.min_p * probs.max()
    return torch.where(kept, probs, 0.0) / probs[kept].sum()


def drawn_from(probs: torch.Tensor, draw: float) -> int:
    return int(torch.searchsorted(probs.cumsum(0), torch.tensor(draw).double(), right=True))


FILTERS = [
    SamplingParams(),
    SamplingParams(temperature=0.6),
    SamplingParams(temperature=2.5),
    SamplingParams(top_k=1),
    SamplingParams(top_k=17),
    SamplingParams(top_k=10**6),
    SamplingParams(top_p=0.5),
    SamplingParams(top_p=0.9, temperature=1.7),
    SamplingParams(top_p=1e-9),
    SamplingParams(top_p=1.0),
    SamplingParams(min_p=0.05),
    SamplingParams(min_p=1.0),
    SamplingParams(top_k=40, top_p=0.8, min_p=0.02, temperature=1.4),
]


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_draws_are_the_inverse_of_the_filtered_distribution(sampling):
    logits = logits_of(1)
    probs = kept_by(logits[0], sampling)
    for seed in range(60):
        (token,) = tokens_of(logits, [row(sampling, seed=seed)])
        assert token == drawn_from(probs, uniform(seed, 0, 0))


def test_rows_of_every_kind_share_a_batch_and_keep_their_tokens():
    samplings = [GREEDY, *FILTERS, GREEDY, *FILTERS]  # more than are drawn for at once
    logits = logits_of(len(samplings), seed=3)
    rows = [row(sampling, seed=index) for index, sampling in enumerate(samplings)]
    alone = [tokens_of(logits[index : index + 1], [one])[0] for index, one in enumerate(rows)]
    assert tokens_of(logits, rows) == alone


@pytest.mark.parametrize("filters", [FILTERS, [f for f in FILTERS if f.top_k or not f.top_p]])
def test_a_devices_thresholds_keep_what_the_hosts_do(filters, monkeypatch):
    rows = [row(each, seed=index) for index, each in enumerate(filters)]
    logits = logits_of(len(rows))
    expected = tokens_of(logits, rows)
    monkeypatch.setattr(
        sampler, "_candidates", lambda logits, _totals, params: sampler._largest(logits, params)
    )
    assert tokens_of(logits, rows) == expected


def test_only_what_orders_are_asked_for_is_ordered():
    logits = logits_of(3)
    few = [SamplingParams(top_k=7, top_p=0.5), SamplingParams(min_p=0.1), SamplingParams()]
    assert sampler._largest(logits, few).shape == (3, 7)
    assert sampler._largest(logits, few[1:]).shape == (3, 1)
    assert sampler._largest(logits, [*few[:2], SamplingParams(top_p=0.5)]).shape == (3, VOCAB)


def test_greedy_takes_the_most_likely():
    logits = logits_of(3)
    rows = [row(GREEDY, seed=seed) for seed in range(3)]
    assert tokens_of(logits, rows) == logits.argmax(-1).tolist()


def test_choices_and_steps_draw_for_themselves():
    logits = torch.zeros(1, VOCAB)
    by_choice = {tokens_of(logits, [row(SamplingParams(), choice=i)])[0] for i in range(30)}
    by_step = {tokens_of(logits, [row(SamplingParams(), output=[3] * i)])[0] for i in range(30)}
    assert len(by_choice) > 10
    assert len(by_step) > 10


def test_frequencies_follow_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    counts = Counter(
        tokens_of(logits, [row(SamplingParams(), seed=seed)])[0] for seed in range(4000)
    )
    for token, probability in enumerate(logits[0].softmax(-1).tolist()):
        assert abs(counts[token] / 4000 - probability) < 0.03


def test_ties_at_the_threshold_are_all_kept():
    logits = torch.tensor([[1.0, 5.0, 5.0, 5.0, 0.0]])
    drawn = {tokens_of(logits, [row(SamplingParams(top_k=2), seed=seed)])[0] for seed in range(60)}
    assert drawn == {1, 2, 3}


def test_penalties_and_bias_change_the_logits_as_defined():
    sampling = SamplingParams(
        temperature=0.0,
        repetition_penalty=1.5,
        presence_penalty=0.4,
        frequency_penalty=0.3,
        logit_bias={7: 2.5, 9: -100.0, 10**6: 50.0, -1: 50.0},
        logprobs=0,
    )
    prompt, output = [3, 4, 7], [5, 5, 7]
    logits = logits_of(1, seed=5)
    expected = logits[0].clone()
    for token in {*prompt, *output}:
        value = expected[token]
        expected[token] = value / 1.5 if value > 0 else value * 1.5
    for token in output:
        expected[token] -= 0.3
    for token in set(output):
        expected[token] -= 0.4
    expected[7] += 2.5
    expected[9] -= 100.0
    best = int(expected.argmax())
    one = row(sampling, prompt=prompt, output=output)
    (result,) = sample(logits.clone(), [one]).fetch([one])
    assert result.token_id == best
    assert result.logprob == pytest.approx(float(logits[0].log_softmax(-1)[best]), abs=1e-5)


@pytest.mark.parametrize(
    ("token", "change"), [(3, -0.5), (5, -0.5 - 1.0), (7, -0.5 - 0.7 + 2.5), (9, 0.0)]
)
@pytest.mark.parametrize("margin", [-1e-3, 1e-3])
def test_a_rival_wins_exactly_by_the_margin(token, change, margin):
    sampling = SamplingParams(
        temperature=0.0,
        repetition_penalty=1.5,
        frequency_penalty=0.3,
        presence_penalty=0.4,
        logit_bias={7: 2.5},
    )
    rival = 100
    logits = torch.full((1, VOCAB), -11.0)
    logits[0, token] = -1.0
    logits[0, rival] = -1.0 + change + margin
    greedy = row(sampling, prompt=[3, 7], output=[5, 5, 7])
    assert tokens_of(logits, [greedy]) == [rival if margin > 0 else token]


@pytest.mark.parametrize("wanted", [0, 1, 5, 20])
def test_logprobs_are_the_models_own(wanted):
    sampling = SamplingParams(temperature=0.5, top_k=3, logit_bias={4: 9.0}, logprobs=wanted)
    logits = logits_of(2, seed=8)
    rows = [row(GREEDY), row(sampling, seed=4)]
    plain, told = sample(logits.clone(), rows).fetch(rows)
    expected = logits[1].log_softmax(-1)
    assert plain.logprob is None
    assert plain.top == ()
    assert told.logprob == pytest.approx(float(expected[told.token_id]), abs=1e-5)
    best = expected.topk(wanted)
    assert [token for token, _ in told.top] == best.indices.tolist()
    assert [value for _, value in told.top] == pytest.approx(best.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, *FILTERS], ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_fail_their_row_alone(sampling, bad):
    logits = logits_of(3, seed=2)
    rows = [row(sampling, seed=seed) for seed in range(3)]
    expected = tokens_of(logits, rows)
    logits[1, 77] = bad
    first, broken, last = sample(logits, rows).fetch(rows)
    assert isinstance(broken, ErrorInfo)
    assert broken.code == "internal_error"
    assert "not finite" in broken.message
    assert [first.token_id, last.token_id] == [expected[0], expected[2]]


def test_a_row_without_any_possible_token_fails():
    rows = [row(SamplingParams(top_p=0.9))]
    (result,) = sample(torch.full((1, VOCAB), -torch.inf), rows).fetch(rows)
    assert isinstance(result, ErrorInfo)


def test_tokens_with_no_probability_are_never_drawn():
    logits = torch.full((1, VOCAB), -torch.inf)
    logits[0, [0, 90, VOCAB - 1]] = 1.0
    drawn = {tokens_of(logits, [row(SamplingParams(), seed=seed)])[0] for seed in range(80)}
    assert drawn == {0, 90, VOCAB - 1}


def test_bfloat16_logits_and_no_rows_are_fine():
    logits = logits_of(1).bfloat16()
    assert tokens_of(logits, [row(GREEDY)]) == [int(logits.argmax())]
    assert sample(torch.empty(0, VOCAB), []).fetch([]) == []


@pytest.mark.parametrize("temperature", [1e-50, 1e-45, 1e-39, 1e-30, 9e-6, 1e-5])
@pytest.mark.parametrize("top_p", [None, 0.9])
def test_a_temperature_near_0_takes_the_most_likely_token(temperature, top_p):
    logits = logits_of(2)
    sampling = SamplingParams(temperature=temperature, top_p=top_p)
    assert tokens_of(logits, [row(sampling), row(sampling)]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(), *FILTERS], ids=str)
def test_only_allowed_tokens_are_taken_and_log_probabilities_stay(sampling):
    told = msgspec.structs.replace(sampling, logprobs=2)
    tokens = {0, 31, 32, 150, 199}
    logits = logits_of(3, seed=6)
    rows = [row(told, seed=1), row(told, seed=2), row(told, seed=3)]
    masks = Masks([mask_of(VOCAB, tokens), None, mask_of(VOCAB, {77})])
    found = sample(logits.clone(), rows, masks).fetch(rows)
    hidden = torch.full((VOCAB,), -torch.inf)
    hidden[list(tokens)] = logits[0, list(tokens)]
    assert found[0].token_id == tokens_of(hidden[None], rows[:1])[0]
    assert found[1] == sample(logits.clone(), rows).fetch(rows)[1]
    assert found[2].token_id == 77
    for one, expected in zip(found, logits.log_softmax(-1), strict=True):
        assert one.logprob == pytest.approx(float(expected[one.token_id]), abs=1e-5)
        assert [token for token, _ in one.top] == expected.topk(2).indices.tolist()


def test_no_bias_and_no_penalty_brings_back_what_a_mask_forbids():
    sampling = SamplingParams(temperature=0.0, logit_bias={5: 100.0}, repetition_penalty=0.1)
    one = row(sampling, prompt=[5], output=[5])
    (found,) = sample(logits_of(1), [one], Masks([mask_of(VOCAB, {9, 10})])).fetch([one])
    assert found.token_id in {9, 10}


def test_a_row_whose_grammar_failed_gets_its_error_and_others_their_tokens():
    logits, rows = logits_of(3), [row(GREEDY)] * 3
    error = ErrorInfo("invalid_request", "too complex")
    masks = Masks([mask_of(VOCAB, {4}), None, None], {1: error})
    first, failed, last = sample(logits.clone(), rows, masks).fetch(rows)
    assert (first.token_id, failed, last.token_id) == (4, error, int(logits[2].argmax()))
