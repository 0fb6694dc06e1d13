"""The step that takes most of a device's memory, over the block that is no sequence's."""

from array import array

from cortex_core.canonical import SamplingParams
from neurond.engine.batch import Row, ScheduledBatch
from neurond.engine.kv_cache import KvCache

_DRAWN = SamplingParams(temperature=1.0, top_p=0.9)


def rehearsal(
    cache: KvCache, step_tokens: int, num_rows: int, context_tokens: int
) -> ScheduledBatch:
    """Return a step of `step_tokens` tokens, the first `num_rows` of which get a draw.

    Its sequences all have the blank block; what they write over each other is not read. None is
    longer than `context_tokens`: a model may have no more positions.
    """
    longest = min(cache.block_tokens, context_tokens)
    lens = [longest] * (step_tokens // longest)
    if rest := step_tokens % longest:
        lens.append(rest)
    batch = ScheduledBatch(
        token_ids=array("i", [0] * step_tokens),
        positions=array("i"),
        slot_mapping=array("i"),
        cu_seqlens_q=array("i", [0]),
        seq_lens_k=array("i", lens),
        block_tables=[array("i", [cache.blank_block])] * len(lens),
        sample_rows=array("i", range(num_rows)),
        rows=[Row(0, 0, 0, _DRAWN, array("i", [0]), 1, None)] * num_rows,
        num_decodes=0,
        max_seqlen_q=max(lens),
        max_seqlen_k=max(lens),
    )
    first = cache.blank_block * cache.block_tokens
    for length in lens:
        batch.positions.extend(range(length))
        batch.slot_mapping.extend(range(first, first + length))
        batch.cu_seqlens_q.append(len(batch.positions))
    return batch
