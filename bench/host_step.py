"""One step of the CPU kernels over a single sequence, for what is measured without an engine."""

from array import array

import numpy as np
from numpy.typing import NDArray

from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import Kernels, Pool, StepColumns
from neurond.kernels.memory import Buffer, KvFormat
from neurond.kernels.packed_model import PackedModel


def sequence_logits(
    kernels: Kernels,
    pool: Pool,
    packed: PackedModel,
    token_ids: list[int],
    kv_format: KvFormat = "bf16",
) -> NDArray[np.float32]:
    """Return the logits [T, vocab_size] after each of the tokens, from one prefill."""
    num_tokens = len(token_ids)
    num_blocks = -(-num_tokens // BLOCK_TOKENS)
    columns = StepColumns.one_sequence(array("i", token_ids))
    model = packed.struct
    scratch = Buffer(kernels.scratch_bytes(model, pool, num_tokens, 1, num_tokens))
    logits = np.empty((num_tokens, model.vocab_size), np.float32)
    pages = kernels.kv_pages(model, num_blocks, kv_format)
    kernels.step(pool, model, columns, pages, scratch, logits)
    return logits
