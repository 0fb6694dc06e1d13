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

from neurond.kernels import abi
from neurond.kernels.library import Kernels, Pool, StepColumns
from neurond.kernels.memory import Buffer, KvFormat
from neurond.kernels.packed_model import PackedModel
from neurond.kv_choice import kv_bytes_per_token
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from neurond.models.plan_reference import reference_logits
from tests.fakes.planned_models import make_model
from tests.fakes.tiny_models import COMMON, VOCAB_SIZE
from tests.fakes.tokenizers_made import byte_level, prepared

NUM_TOKENS = 600
"""The kernels take keys in spans of 512."""
PIECES = (1, 70, 443, 4, 2, 3, 77)
"""Few rows and many; of the third piece, which ends at 514, few rows see the second span."""
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


def some_ids() -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB_SIZE, (NUM_TOKENS,), generator=generator).tolist()


def logits_of(
    kernels: Kernels,
    pool: Pool,
    model: PackedModel,
    kv_format: KvFormat,
    pieces: Sequence[int] = (NUM_TOKENS,),
) -> np.ndarray:
    """Return the logits of a prompt whose tokens are computed in steps of so many."""
    struct = model.struct
    num_blocks = -(-NUM_TOKENS // abi.BLOCK_TOKENS)
    pages = kernels.kv_pages(struct, num_blocks, kv_format)
    scratch = Buffer(kernels.scratch_bytes(struct, pool, NUM_TOKENS, 1, NUM_TOKENS))
    ids = some_ids()
    found = []
    start = 0
    for piece in pieces:
        columns = StepColumns.one_sequence(array("i", ids[start : start + piece]), start)
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
    expected = reference_logits(planned(name), torch.tensor(some_ids()), torch.arange(NUM_TOKENS))
    error = np.sqrt(np.mean((found - expected.numpy()) ** 2) / np.mean(expected.numpy() ** 2))
    assert error < CLOSE[kv_format]


@FORMATS
@pytest.mark.parametrize("name", CONFIGS)
def test_bits_do_not_depend_on_chunks_or_threads(kernels, name, kv_format):
    model = packed(name, kernels)
    with kernels.pool(1) as one, kernels.pool(2) as two:
        whole = logits_of(kernels, one, model, kv_format)
        in_pieces = logits_of(kernels, two, model, kv_format, PIECES)
    np.testing.assert_array_equal(whole, in_pieces)


@FORMATS
def test_pages_take_what_was_planned_for_a_token(kernels, kv_format):
    dtype = "int8" if kv_format == "int8" else "bfloat16"
    for head_dim in (16, 48, 64, 80, 128, 256):
        layers = (abi.Layer * 2)(*[abi.Layer(num_kv_heads=3, head_dim=head_dim)] * 2)
        found = kernels.kv_bytes(abi.Model(num_layers=2, layers=layers), 5, kv_format)
        sizes = {"num_layers": 2, "num_kv_heads": 3, "head_dim": head_dim}
        model = msgspec.structs.replace(prepared(byte_level()), **sizes)
        assert sum(found) == 5 * abi.BLOCK_TOKENS * kv_bytes_per_token(model, dtype)
