"""Every attention backend gives what the slow, obvious form of the contract gives."""

import pytest
import torch

from neurond.attention import reference, varlen
from neurond.attention.base import AttentionParams
from neurond.attention.flash2 import Flash2Backend
from neurond.attention.reference import ReferenceBackend
from neurond.attention.varlen import TorchVarlenBackend
from neurond.engine.kv_shape import LayerShape
from tests.fakes import flash_attn_checked
from tests.fakes.attention_cases import Case, attend_slowly, make_case

SHAPE = LayerShape(num_kv_heads=2, key_dim=16, value_dim=16)
SCALE = 0.3

STEPS = {
    "one decode": [(1, 1)],
    "decodes": [(1, 5), (1, 8), (1, 1), (1, 31), (1, 16)],
    "prefill": [(9, 9)],
    "later chunk": [(5, 14)],
    "mixed": [(1, 3), (1, 29), (2, 2), (7, 19), (12, 12)],
}
KINDS = {
    "plain": AttentionParams(SCALE),
    "window": AttentionParams(SCALE, window=6),
    "window of one": AttentionParams(SCALE, window=1),
    "softcap": AttentionParams(SCALE, softcap=1.5),
    "sinks": AttentionParams(SCALE, sinks=torch.linspace(-2, 3, 6)),
    "all": AttentionParams(SCALE, window=6, softcap=1.5, sinks=torch.linspace(-2, 3, 6)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_reference_keeps_the_contract(step, kind):
    case = make_case(STEPS[step], shape=SHAPE)
    plan = ReferenceBackend().plan(case.batch)
    out = plan.attend(case.query, *case.pages, KINDS[kind])
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "all"])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_reference_takes_any_heads_and_value_size(num_heads, kind):
    params = KINDS[kind]
    if params.sinks is not None:
        params = AttentionParams(SCALE, 6, 1.5, torch.linspace(-1, 1, num_heads))
    shape = LayerShape(num_kv_heads=1, key_dim=12, value_dim=7)
    case = make_case(STEPS["mixed"], shape=shape, num_heads=num_heads)
    out = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, params)
    torch.testing.assert_close(out.double(), attend_slowly(case, params), atol=1e-5, rtol=1e-5)


def test_one_plan_serves_layers_with_different_windows():
    case = make_case(STEPS["mixed"], shape=SHAPE)
    plan = ReferenceBackend().plan(case.batch)
    for kind in ("window", "plain", "window of one", "window"):
        out = plan.attend(case.query, *case.pages, KINDS[kind])
        torch.testing.assert_close(
            out.double(), attend_slowly(case, KINDS[kind]), atol=1e-5, rtol=1e-5
        )


def test_what_is_not_seen_does_not_matter():
    case = make_case(STEPS["mixed"], shape=SHAPE)
    plan = ReferenceBackend().plan(case.batch)
    before = plan.attend(case.query, *case.pages, KINDS["plain"])
    keys, values = case.pages
    for pages in (keys, values):
        for table, kv_len in zip(case.batch.block_tables, case.batch.kv_lens, strict=True):
            last = table[(kv_len - 1) // case.batch.block_tokens]
            pages[last, (kv_len - 1) % case.batch.block_tokens + 1 :] = 1e4
    after = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, KINDS["plain"])
    assert torch.equal(before, after)


TWO_WAY = {
    "alone": ([(9, 9)], (True,)),
    "behind text": ([(5, 14)], (True,)),
    "one token": ([(1, 6), (1, 7)], (False, True)),
    "mixed": (
        [(1, 3), (1, 29), (2, 2), (7, 9), (4, 13), (3, 3), (12, 12)],
        (False, False, False, True, False, True, True),
    ),
}
"""Lengths, and which sequences are two-way; decodes are not."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", TWO_WAY)
def test_reference_attends_both_ways(step, kind):
    lens, two_way = TWO_WAY[step]
    case = make_case(lens, shape=SHAPE, num_decodes=2 if step == "mixed" else 0, two_way=two_way)
    out = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=1e-5, rtol=1e-5)


def two_way_case(step: str, lens: list[tuple[int, int]] | None = None) -> Case:
    """A step of `TWO_WAY` over pages of a GPU, its contexts as long as in `lens`."""
    known, two_way = TWO_WAY[step]
    return make_case(
        lens or known,
        shape=SHAPE,
        block_tokens=256,
        dtype=torch.bfloat16,
        num_decodes=2 if step == "mixed" else 0,
        two_way=two_way,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", TWO_WAY)
def test_flash2_attends_both_ways(step, kind):
    case = two_way_case(step)
    backend = Flash2Backend(
        flash_attn_checked.flash_attn_varlen_func, flash_attn_checked.flash_attn_with_kvcache
    )
    out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("at_once", [1, 600, 32_768])
@pytest.mark.parametrize("kind", ["plain", "window", "window of one", "sinks"])
@pytest.mark.parametrize("step", TWO_WAY)
def test_torchs_own_attends_both_ways(step, kind, at_once, monkeypatch):
    monkeypatch.setattr(varlen, "GATHER_TOKENS", at_once)
    case = two_way_case(step)
    backend = TorchVarlenBackend(flash_attn_checked.varlen_attn)
    out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("kind", "window_size"), [("plain", (-1, -1)), ("window", (5, -1)), ("all", (5, -1))]
)
def test_flash2_attends_both_ways_over_pages_where_they_lie(kind, window_size, monkeypatch):
    case = two_way_case("behind text", [(40, 600)])
    calls = []

    def attend(*tensors, **options):
        calls.append((options["causal"], options["window_size"]))
        assert tensors[1].data_ptr() == case.pages[0].data_ptr()
        return flash_attn_checked.flash_attn_varlen_func(*tensors, **options)

    backend = Flash2Backend(attend, flash_attn_checked.flash_attn_with_kvcache)
    out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    assert calls == [(False, window_size)]
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("two_way", [False, True])
@pytest.mark.parametrize(("window", "num_blocks"), [(6, 4), (7, 5), (10, 5), (40, 11), (None, 11)])
def test_the_reference_gathers_from_where_a_window_begins(window, num_blocks, two_way, monkeypatch):
    case = make_case([(8, 41)], shape=SHAPE, two_way=(two_way,))
    params = AttentionParams(SCALE, window)
    gathered = []
    select = torch.Tensor.index_select

    def counted(pages, dim, index):
        gathered.append(index.numel())
        return select(pages, dim, index)

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    out = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, params)
    assert gathered == [num_blocks] * 2
    torch.testing.assert_close(out.double(), attend_slowly(case, params), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_flash2_keeps_the_contract(step, kind):
    case = make_case(STEPS[step], shape=SHAPE, block_tokens=256, dtype=torch.bfloat16)
    backend = Flash2Backend(
        flash_attn_checked.flash_attn_varlen_func, flash_attn_checked.flash_attn_with_kvcache
    )
    assert case.batch.block_tokens % backend.page_multiple_tokens == 0
    out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("at_once", [1, 600, 32_768])
@pytest.mark.parametrize("kind", ["plain", "window", "window of one", "sinks"])
@pytest.mark.parametrize("step", STEPS)
def test_torchs_own_keeps_the_contract(step, kind, at_once, monkeypatch):
    monkeypatch.setattr(varlen, "GATHER_TOKENS", at_once)
    case = make_case(STEPS[step], shape=SHAPE, block_tokens=256, dtype=torch.bfloat16)
    backend = TorchVarlenBackend(flash_attn_checked.varlen_attn)
    out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=2e-2, rtol=2e-2)


def test_torchs_own_takes_a_sequence_of_several_pages():
    case = make_case(
        [(1, 300), (1, 600), (40, 290)], shape=SHAPE, block_tokens=256, dtype=torch.bfloat16
    )
    params = KINDS["window"]
    backend = TorchVarlenBackend(flash_attn_checked.varlen_attn)
    out = backend.plan(case.batch).attend(case.query, *case.pages, params)
    torch.testing.assert_close(out.double(), attend_slowly(case, params), atol=2e-2, rtol=2e-2)


def test_flash2_gives_a_decode_the_same_beside_a_prompt():
    lens = [(1, 300), (1, 5), (40, 290)]
    case = make_case(lens, shape=SHAPE, block_tokens=256, dtype=torch.bfloat16)
    calls = []

    def with_kvcache(q, *args, **options):
        calls.append((q.shape[0], options["num_splits"]))
        return flash_attn_checked.flash_attn_with_kvcache(q, *args, **options)

    backend = Flash2Backend(flash_attn_checked.flash_attn_varlen_func, with_kvcache)
    mixed = backend.plan(case.batch).attend(case.query, *case.pages, KINDS["all"])
    alone = backend.plan(case.batch.decodes()).attend(case.query[:2], *case.pages, KINDS["all"])
    assert torch.equal(mixed[:2], alone)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("kind", ["plain", "window", "all"])
@pytest.mark.parametrize("two_way", [False, True])
@pytest.mark.parametrize("lens", [[(9, 9)], [(5, 14)], [(7, 19), (12, 12)]])
def test_a_prompt_may_be_cut_by_its_queries(lens, two_way, kind, monkeypatch):
    monkeypatch.setattr(reference, "queries_at_once", lambda query, num_keys: 4)
    case = make_case(lens, shape=SHAPE, two_way=(two_way,) * len(lens))
    out = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, KINDS[kind])
    torch.testing.assert_close(out.double(), attend_slowly(case, KINDS[kind]), atol=1e-5, rtol=1e-5)


def test_what_the_reference_gathers_is_bounded(monkeypatch):
    monkeypatch.setattr(reference, "GATHER_TOKENS", 16)
    case = make_case([(1, 5), (1, 8), (1, 1), (1, 31), (1, 16), (3, 9)], shape=SHAPE)
    gathered = []
    select = torch.Tensor.index_select

    def counted(pages, dim, index):
        if pages.dim() == 4:
            gathered.append(index.numel() * pages.shape[1])
        return select(pages, dim, index)

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    out = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, KINDS["all"])
    assert max(gathered) == 32, "one sequence may have more"
    torch.testing.assert_close(
        out.double(), attend_slowly(case, KINDS["all"]), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("num_decodes", [0, 1])
@pytest.mark.parametrize("lens", [[(1, 1)], [(1, 257)], [(1, 5), (1, 257)], [(1, 5), (3, 257)]])
def test_a_prompt_may_have_one_token_left(lens, num_decodes):
    case = make_case(
        lens, shape=SHAPE, block_tokens=256, dtype=torch.bfloat16, num_decodes=num_decodes
    )
    flash = Flash2Backend(
        flash_attn_checked.flash_attn_varlen_func, flash_attn_checked.flash_attn_with_kvcache
    )
    for backend in (flash, ReferenceBackend()):
        out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS["all"])
        torch.testing.assert_close(
            out.double(), attend_slowly(case, KINDS["all"]), atol=2e-2, rtol=2e-2
        )


def test_flash2_spans_several_pages():
    case = make_case(
        [(1, 300), (1, 600), (40, 290)], shape=SHAPE, block_tokens=256, dtype=torch.bfloat16
    )
    backend = Flash2Backend(
        flash_attn_checked.flash_attn_varlen_func, flash_attn_checked.flash_attn_with_kvcache
    )
    expected = ReferenceBackend().plan(case.batch).attend(case.query, *case.pages, KINDS["all"])
    out = backend.plan(case.batch).attend(case.query, *case.pages, KINDS["all"])
    torch.testing.assert_close(out, expected, atol=2e-2, rtol=2e-2)
