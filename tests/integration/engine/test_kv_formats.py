"""What keys and values are kept in: how near results come, and that bits depend on nothing else."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, PreTrainedConfig

from bench.quality.oracle import reference_logits
from neurond.kernels import abi
from neurond.kernels.library import Kernels, Pool, StepColumns
from neurond.kernels.memory import Buffer, KvFormat
from neurond.kernels.packed_file import WeightFormat
from neurond.kernels.packed_model import PackedModel
from neurond.kv_choice import kv_bytes_per_token
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from tests.fakes.planned_models import make_model
from tests.fakes.tiny_models import COMMON, VOCAB_SIZE
from tests.fakes.tokenizers_made import byte_level, prepared

NUM_TOKENS = 600
"""The kernels take keys in spans of 512."""
PIECES = (1, 70, 443, 4, 2, 3, 77)
"""Few rows and many; of the third piece, which ends at 514, few rows see the second span."""
LONG_PIECES = (512, 512, 512, 512, 256, 128, 33, 6, 1)
"""Those after the first four have few tiles of five spans each, which threads share in several
rounds: a round has room for 8 tiles' rows for each thread. A tile of AMX has 256 rows, others 48,
and a token has as many rows as queries share a key."""
SHORT = 40
"""Tokens of a sequence that is computed beside."""
LONG = {**COMMON, "num_hidden_layers": 2, "max_position_embeddings": 1024}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "heads of 48": lambda: LlamaConfig(**{**LONG, "head_dim": 48}),
    "heads of 80": lambda: LlamaConfig(**{**LONG, "head_dim": 80}),
    "one key for three queries": lambda: LlamaConfig(
        **{**LONG, "hidden_size": 96, "num_attention_heads": 6, "head_dim": 64}
    ),
    "softcap and window": lambda: Gemma2Config(
        **{**LONG, "head_dim": 32}, sliding_window=530, attn_logit_softcapping=5.0
    ),
    "sinks": lambda: LlamaConfig(**LONG),
}
EIGHT_QUERIES = {
    **COMMON,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "max_position_embeddings": sum(LONG_PIECES),
}
CLOSE: dict[KvFormat, float] = {"bf16": 0.03, "int8": 0.05}
"""Error by logits, both root mean square, with weights in bfloat16."""
FORMATS = pytest.mark.parametrize("kv_format", get_args(KvFormat))


@cache
def planned(name: str) -> DecoderPlan:
    plan = plan_decoder(make_model(CONFIGS[name]()))
    assert isinstance(plan, DecoderPlan), plan.reason
    if name != "sinks":
        return plan
    sinks = torch.linspace(-1, 4, 4)
    return replace(plan, layers=tuple(replace(layer, sinks=sinks) for layer in plan.layers))


def packed(name: str, kernels: Kernels) -> PackedModel:
    return pack_to_memory(planned(name), "0123456789abcdef", "bf16", kernels, lambda _: None)


def some_ids(count: int = NUM_TOKENS) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB_SIZE, (count,), generator=generator).tolist()


def blocks(num_tokens: int) -> int:
    return -(-num_tokens // abi.BLOCK_TOKENS)


def with_company(one: StepColumns, prompt: array, first_block: int) -> StepColumns:
    """Return the step of `one` sequence with the whole of another, of which none is sampled."""
    other = StepColumns.one_sequence(prompt)
    width = max(one.table_width, other.table_width)
    tables = array("i", bytes(2 * width * one.block_tables.itemsize))
    tables[: one.table_width] = one.block_tables
    for place, block in enumerate(other.block_tables, width):
        tables[place] = first_block + block
    first_slot = first_block * abi.BLOCK_TOKENS
    return StepColumns(
        token_ids=one.token_ids + other.token_ids,
        positions=one.positions + other.positions,
        slots=one.slots + array("i", [first_slot + slot for slot in other.slots]),
        cu_seqlens_q=one.cu_seqlens_q + array("i", [len(one.token_ids) + len(prompt)]),
        seq_lens_k=one.seq_lens_k + other.seq_lens_k,
        block_tables=tables,
        table_width=width,
        sample_rows=one.sample_rows,
    )


def logits_of(
    kernels: Kernels,
    pool: Pool,
    model: PackedModel,
    kv_format: KvFormat,
    pieces: Sequence[int] = (NUM_TOKENS,),
    company: int = 0,
) -> np.ndarray:
    """Return the logits of a prompt whose tokens are computed in steps of so many.

    Each step computes a sequence of `company` tokens, too.
    """
    struct = model.struct
    num_tokens, most = sum(pieces), max(pieces) + company
    num_blocks = blocks(num_tokens)
    pages = kernels.kv_pages(struct, num_blocks + blocks(company), kv_format)
    scratch = Buffer(kernels.scratch_bytes(struct, pool, most, 2, most))
    ids = some_ids(num_tokens)
    found = []
    start = 0
    for piece in pieces:
        columns = StepColumns.one_sequence(array("i", ids[start : start + piece]), start)
        if company:
            columns = with_company(columns, array("i", ids[:company]), num_blocks)
        logits = np.empty((piece, struct.vocab_size), np.float32)
        kernels.step(pool, struct, columns, pages, scratch, logits)
        found.append(logits)
        start += piece
    return np.concatenate(found)


@FORMATS
@pytest.mark.parametrize("name", CONFIGS)
def test_kernels_compute_what_the_plan_says(kernels, name, kv_format):
    with kernels.pool(2) as pool:
        found = logits_of(kernels, pool, packed(name, kernels), kv_format)
    expected = reference_logits(planned(name), torch.tensor(some_ids()))
    error = np.sqrt(np.mean((found - expected.numpy()) ** 2) / np.mean(expected.numpy() ** 2))
    assert error < CLOSE[kv_format]


@FORMATS
@pytest.mark.parametrize("name", CONFIGS)
def test_bits_do_not_depend_on_chunks_or_threads(kernels, name, kv_format):
    model = packed(name, kernels)
    with kernels.pool(1) as one:
        whole = logits_of(kernels, one, model, kv_format)
    for threads in (2, 3):
        with kernels.pool(threads) as pool:
            in_pieces = logits_of(kernels, pool, model, kv_format, PIECES)
        np.testing.assert_array_equal(whole, in_pieces)


@FORMATS
@pytest.mark.parametrize("weight_format", get_args(WeightFormat))
def test_bits_do_not_depend_on_threads_that_share_tiles_in_rounds(
    kernels, weight_format, kv_format
):
    plan = plan_decoder(make_model(LlamaConfig(**EIGHT_QUERIES)))
    assert isinstance(plan, DecoderPlan)
    model = pack_to_memory(plan, "0123456789abcdef", weight_format, kernels, lambda _: None)
    first, rest = LONG_PIECES[:4], LONG_PIECES[4:]
    with kernels.pool(1) as one:
        alone = logits_of(kernels, one, model, kv_format, (*first, sum(rest)))
    assert np.isfinite(alone).all()
    for threads, company in ((2, 0), (3, SHORT)):
        with kernels.pool(threads) as pool:
            shared = logits_of(kernels, pool, model, kv_format, LONG_PIECES, company)
        np.testing.assert_array_equal(alone[sum(first) :], shared[sum(first) :])


@FORMATS
def test_bits_do_not_depend_on_threads_where_layers_differ_in_what_they_see(kernels, kv_format):
    """Tiles are shared in all layers, by spans 3 and 4 where there is a window, else by 0 to 4."""
    windows = {"sliding_window": 600, "layer_types": [*["sliding_attention"] * 2, "full_attention"]}
    sizes = {**EIGHT_QUERIES, "num_hidden_layers": 3}
    plan = plan_decoder(make_model(Gemma2Config(**sizes, **windows)))
    assert isinstance(plan, DecoderPlan)
    model = pack_to_memory(plan, "0123456789abcdef", "bf16", kernels, lambda _: None)
    first, rest = LONG_PIECES[:-2], LONG_PIECES[-2:]
    with kernels.pool(1) as one:
        alone = logits_of(kernels, one, model, kv_format, (*first, sum(rest)))
    assert np.isfinite(alone).all()
    with kernels.pool(3) as pool:
        shared = logits_of(kernels, pool, model, kv_format, (*first, *rest))
    np.testing.assert_array_equal(alone[sum(first) :], shared[sum(first) :])


@FORMATS
def test_pages_take_what_was_planned_for_a_token(kernels, kv_format):
    dtype = "int8" if kv_format == "int8" else "bfloat16"
    for head_dim in (16, 48, 64, 80, 128, 256):
        layers = (abi.Layer * 2)(*[abi.Layer(num_kv_heads=3, head_dim=head_dim)] * 2)
        found = kernels.kv_bytes(abi.Model(num_layers=2, layers=layers), 5, kv_format)
        sizes = {"num_layers": 2, "num_kv_heads": 3, "head_dim": head_dim}
        model = msgspec.structs.replace(prepared(byte_level()), **sizes)
        assert sum(found) == 5 * abi.BLOCK_TOKENS * kv_bytes_per_token(model, dtype)
