"""The kernel that samples on the host, against the sampler that says what sampling means."""

import ctypes
import math
import shutil
import subprocess
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import neurond.kernels
from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from neurond.engine.batch import Row, SampledToken
from neurond.engine.host_sampler import sample_on_host
from neurond.engine.randomness import uniform
from neurond.engine.row_rules import temperature_of
from neurond.engine.sampler import sample
from neurond.kernels import abi, sample_abi
from neurond.kernels.csrc import build
from neurond.kernels.sampling import SampleKernel
from neurond.kernels.variants import VARIANTS, cpu_flags
from tests.fakes.sampler_rows import mask_of, row

CSRC = Path(neurond.kernels.__file__).parent / "csrc"
FLAGS = ["-O2", "-std=c++17", "-ffp-contract=off", "-fno-math-errno"]
SHARED = ["-shared", "-fPIC", "-pthread"]
GREEDY = SamplingParams(temperature=0.0)
MARGIN = 1e-5
"""How far rounding may move a place in the cumulative distribution."""

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture(scope="module", params=[*VARIANTS, "emulated avx512"])
def library(request, emulate, tmp_path_factory):
    if request.param == "emulated avx512":
        path = emulate("avx512").path
    else:
        if missing := VARIANTS[request.param] - cpu_flags():
            pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
        path = tmp_path_factory.mktemp("kernels") / f"{request.param}.so"
        sources = [str(CSRC / name) for name in ("sample.cpp", "pool.cpp")]
        flags = [*FLAGS, *build.VARIANTS[request.param], *SHARED]
        subprocess.run(["g++", *flags, *sources, "-o", path], check=True)
    loaded = ctypes.CDLL(str(path))
    for name in ("cortex_pool_create", "cortex_pool_destroy"):
        function = getattr(loaded, name)
        function.restype, function.argtypes = abi.FUNCTIONS[name]
    abi.declare(loaded, sample_abi.FUNCTIONS)
    return loaded


@pytest.fixture(scope="module")
def kernel_for(library):
    """Give the kernel for a vocabulary and a number of threads."""
    pools = {threads: library.cortex_pool_create(threads) for threads in (1, 2, 3)}

    def kernel(vocab: int, threads: int = 2) -> SampleKernel:
        pool = pools[threads]
        return SampleKernel(library, pool, vocab, library.cortex_sample_scratch_bytes(pool, vocab))

    yield cache(kernel)
    for pool in pools.values():
        library.cortex_pool_destroy(pool)


def logits_of(rows: int, vocab: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def chosen(kernel, logits: torch.Tensor, rows: list[Row], allowed=()):
    copy = logits.clone()
    return sample_on_host(kernel, copy.data_ptr(), rows, allowed)


def tokens_of(kernel, logits: torch.Tensor, rows: list[Row], allowed=()) -> list[int]:
    return [one.token_id for one in chosen(kernel, logits, rows, allowed)]


def interval_of(logits: torch.Tensor, sampling: SamplingParams, token: int, slack: float):
    """Return where `token` begins and ends in the distribution, with thresholds moved a little."""
    probs = (logits.double() / temperature_of(sampling)).softmax(-1)
    ordered = probs.sort(descending=True).values
    if sampling.top_k is not None:
        ordered = ordered[: sampling.top_k]
    top_p = min((sampling.top_p or 1.0) * (1 + slack), 1.0)
    before = ordered.cumsum(0) - ordered
    threshold = ordered[before < top_p * ordered.sum()].min()
    threshold = torch.maximum(threshold, probs.max() * (sampling.min_p or 0.0))
    kept = torch.where(probs >= threshold * (1 - abs(slack)), probs, 0.0)
    cumulative = (kept / kept.sum()).cumsum(0)
    return float(cumulative[token] - kept[token] / kept.sum()), float(cumulative[token])


def assert_draws(logits: torch.Tensor, one: Row, token: int) -> None:
    """Assert that `token` is what is drawn, or would be if something were rounded otherwise."""
    draw = uniform(one.seed, one.choice, one.num_output_tokens)
    places = [interval_of(logits, one.sampling, token, slack) for slack in (0.0, 1e-6, -1e-6)]
    assert any(start - MARGIN <= draw <= end + MARGIN and start < end for start, end in places)


def assert_same(kernel, logits: torch.Tensor, rows: list[Row]) -> None:
    expected = sample(logits.clone(), rows).fetch(rows)
    for index, (mine, other) in enumerate(zip(chosen(kernel, logits, rows), expected, strict=True)):
        if isinstance(mine, ErrorInfo) or isinstance(other, ErrorInfo):
            assert mine == other
            continue
        if mine.token_id != other.token_id:
            assert_draws(logits[index], rows[index], mine.token_id)
        elif mine.logprob is not None:
            assert mine.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert_top(mine, other, logits[index])


def assert_top(mine: SampledToken, other: SampledToken, logits: torch.Tensor) -> None:
    assert [value for _, value in mine.top] == pytest.approx([p for _, p in other.top], abs=1e-4)
    found = [(-float(logits[token]), token) for token, _ in mine.top]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


SAMPLINGS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([None, 0.0, 1e-45, 1e-6, 0.05, 0.7, 1.0, 1.9, 40.0]),
    top_k=st.sampled_from([None, None, 1, 2, 7, 50, 400, 10**6]),
    top_p=st.sampled_from([None, None, 1e-9, 0.2, 0.9, 0.95, 0.9999, 1.0]),
    min_p=st.sampled_from([None, None, 0.0, 0.03, 0.4, 1.0]),
    logprobs=st.sampled_from([None, None, 0, 1, 20]),
)
ROWS = st.builds(
    row,
    SAMPLINGS,
    seed=st.integers(0, 2**64 - 1),
    choice=st.integers(0, 15),
    output=st.lists(st.just(1), max_size=3),
)


@settings(max_examples=150)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=20),
    vocab=st.sampled_from([1, 2, 31, 127, 128, 129, 300, 5000]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.01, 1.0, 4.0, 20.0]),
    whole=st.booleans(),
    hidden=st.sampled_from([0.0, 0.0, 0.5, 0.99]),
)
def test_rows_get_the_tokens_of_the_sampler(kernel_for, rows, vocab, seed, scale, whole, hidden):
    logits = logits_of(len(rows), vocab, seed, scale)
    if whole:
        logits.round_()
    masked = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < hidden
    masked[:, seed % vocab] = False
    assert_same(kernel_for(vocab), logits.masked_fill(masked, -torch.inf), rows)


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_large_vocabularies_get_the_tokens_of_the_sampler(kernel_for, scale):
    filters = [{}, {"top_p": 0.95}, {"top_k": 40}, {"top_k": 3000, "top_p": 0.9}, {"min_p": 0.02}]
    samplings = [SamplingParams(temperature=0.8, **one) for one in filters] * 20
    rows = [row(sampling, seed=seed) for seed, sampling in enumerate(samplings)]
    assert_same(kernel_for(50257), logits_of(len(rows), 50257, int(scale), scale), rows)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
def test_top_p_tells_values_apart_that_are_close_together(kernel_for, spread):
    logits = 1.0 + logits_of(40, 5000, scale=spread)
    logits[:, 17] = 8.0
    rows = [row(SamplingParams(top_p=0.7), seed=seed) for seed in range(40)]
    assert_same(kernel_for(5000), logits, rows)


@pytest.mark.parametrize("share", [0.02, 0.98], ids=["just begun", "just reached"])
def test_top_p_keeps_up_to_the_token_that_reaches_it(kernel_for, share):
    values = torch.linspace(2.0, 1.0, 1500)
    probs = values.double().softmax(-1)
    before = probs.cumsum(0) - probs
    logits, rows = [], []
    for last in range(5, 1500, 35):  # the last kept has the last id, the first left out the first
        others = torch.cat([values[last + 1 :], values[:last]])
        logits.append(torch.cat([others, values[last : last + 1]]))
        sampling = SamplingParams(top_p=float(before[last] + share * probs[last]))
        width = float(probs[last] / (before[last] + probs[last]))
        middle = (seed for seed in count() if 0.3 < (1 - uniform(seed, 0, 0)) / width < 0.7)
        rows.append(row(sampling, seed=next(middle)))
    assert set(tokens_of(kernel_for(1500), torch.stack(logits), rows)) == {1499}


def test_a_token_does_not_depend_on_batch_or_threads(kernel_for):
    samplings = [GREEDY, SamplingParams(top_p=0.9), SamplingParams(top_k=9, logprobs=3)] * 5
    rows = [row(sampling, seed=seed) for seed, sampling in enumerate(samplings)]
    logits = logits_of(len(rows), 3000)
    alone = [chosen(kernel_for(3000, 1), logits[i : i + 1], [one])[0] for i, one in enumerate(rows)]
    for threads in (1, 2, 3):
        assert chosen(kernel_for(3000, threads), logits, rows) == alone


def test_ties_at_a_threshold_are_all_kept(kernel_for):
    logits = torch.tensor([[1.0, 5.0, 5.0, 5.0, 0.0]])
    for sampling in (SamplingParams(top_k=2), SamplingParams(top_p=0.5), SamplingParams(min_p=1.0)):
        rows = [row(sampling, seed=seed) for seed in range(60)]
        assert set(tokens_of(kernel_for(5), logits.expand(60, 5), rows)) == {1, 2, 3}


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SamplingParams(temperature=1e-40),
        SamplingParams(temperature=1e-3),
        SamplingParams(temperature=300.0, top_k=1),
        SamplingParams(temperature=300.0, top_p=1e-12),
        SamplingParams(temperature=300.0, min_p=1.0),
    ],
    ids=str,
)
def test_what_leaves_one_token_takes_the_most_likely(kernel_for, sampling):
    logits = logits_of(20, 1000)
    rows = [row(sampling, seed=seed) for seed in range(20)]
    assert tokens_of(kernel_for(1000), logits, rows) == logits.argmax(-1).tolist()


def test_among_equals_greedy_takes_the_lowest_id(kernel_for):
    logits = torch.zeros(1, 400)
    logits[0, [130, 131, 390]] = 2.0
    assert tokens_of(kernel_for(400), logits, [row(GREEDY)]) == [130]


def test_temperatures_without_bound_draw_evenly(kernel_for):
    rows = [row(SamplingParams(temperature=1e300), seed=seed) for seed in range(50)]
    logits = logits_of(1, 1000)
    logits[0, 5] = -torch.inf
    found = tokens_of(kernel_for(1000), logits.expand(50, 1000), rows)
    even = [uniform(seed, 0, 0) * 999 for seed in range(50)]
    assert found == [math.floor(place) + (place >= 5) for place in even]


def test_tokens_with_no_probability_are_never_drawn(kernel_for):
    logits = torch.full((80, 300), -torch.inf)
    logits[:, [0, 90, 299]] = 1.0
    rows = [row(SamplingParams(), seed=seed) for seed in range(80)]
    assert set(tokens_of(kernel_for(300), logits, rows)) == {0, 90, 299}


@pytest.mark.parametrize("wanted", [None, 3])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(), SamplingParams(top_p=0.9)], ids=str)
def test_penalties_and_bias_are_those_of_the_sampler(kernel_for, sampling, wanted):
    changed = SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        repetition_penalty=1.5,
        presence_penalty=0.4,
        frequency_penalty=-1.3,
        logit_bias={7: 2.5, 9: -100.0, 5: 1.5, 2**31 - 1: 50.0, 200: 50.0},
        logprobs=wanted,
    )
    rows = [
        row(changed, prompt=[3, 4, 7], output=[5, 5, 7, *range(i), 250], seed=i) for i in range(60)
    ]
    logits = logits_of(60, 200, seed=4)
    expected = sample(logits.clone(), rows).fetch(rows)
    found = chosen(kernel_for(200), logits, rows)
    assert [one.token_id for one in found] == [one.token_id for one in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.logprob == (wanted and pytest.approx(other.logprob, abs=1e-4))
        assert [token for token, _ in mine.top] == [token for token, _ in other.top]


def test_a_penalty_without_bound_leaves_what_was_not_seen(kernel_for):
    sampling = SamplingParams(repetition_penalty=1e300, temperature=0.0)
    logits = torch.tensor([[-4.0, 9.0, -1.0, 0.5, -2.0]])
    assert tokens_of(kernel_for(5), logits, [row(sampling, prompt=[1, 2])]) == [3]


def test_penalties_without_counts_change_nothing(kernel_for):
    one = row(SamplingParams(temperature=0.0, presence_penalty=2.0))
    one.counts = None
    logits = logits_of(1, 100)
    assert tokens_of(kernel_for(100), logits, [one]) == [int(logits.argmax())]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("wanted", [None, 2])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_fail_their_row_alone(kernel_for, bad, wanted, temperature):
    sampling = SamplingParams(temperature=temperature, top_p=0.9, logprobs=wanted)
    rows = [row(sampling, seed=seed) for seed in range(3)]
    logits = logits_of(3, 300)
    expected = chosen(kernel_for(300), logits, rows)
    logits[1, 299] = bad
    found = chosen(kernel_for(300), logits, rows)
    assert found[1] == sample(logits.clone(), rows).fetch(rows)[1]
    assert isinstance(found[1], ErrorInfo)
    assert [found[0], found[2]] == [expected[0], expected[2]]


def test_a_row_without_any_possible_token_fails(kernel_for):
    (found,) = chosen(kernel_for(300), torch.full((1, 300), -torch.inf), [row(SamplingParams())])
    assert isinstance(found, ErrorInfo)


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(), SamplingParams(top_k=3)], ids=str)
def test_only_allowed_tokens_are_taken_and_log_probabilities_stay(kernel_for, sampling):
    told = SamplingParams(temperature=sampling.temperature, top_k=sampling.top_k, logprobs=2)
    tokens = {0, 31, 32, 150, 199}
    logits = logits_of(3, 200, seed=6)
    rows = [row(told, seed=1), row(told, seed=2), row(told, seed=3)]
    masks = [mask_of(200, tokens), None, mask_of(200, {77})]
    found = chosen(kernel_for(200), logits, rows, masks)
    hidden = torch.full((200,), -torch.inf)
    hidden[list(tokens)] = logits[0, list(tokens)]
    assert found[0].token_id == tokens_of(kernel_for(200), hidden[None], rows[:1])[0]
    assert found[1] == chosen(kernel_for(200), logits, rows)[1]
    assert found[2].token_id == 77
    for one, expected in zip(found, logits.log_softmax(-1), strict=True):
        assert one.logprob == pytest.approx(float(expected[one.token_id]), abs=1e-4)
        assert [token for token, _ in one.top] == expected.topk(2).indices.tolist()


def test_no_rows_are_fine(kernel_for):
    assert sample_on_host(kernel_for(100), 0, []) == []
