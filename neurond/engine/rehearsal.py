"""The step that takes most of a device's memory, over the block that is no sequence's."""

from array import array

from cortex_core.canonical import SamplingParams
from neurond.engine.batch import ImageQueries, Row, ScheduledBatch
from neurond.engine.blocks import blocks_for
from neurond.engine.images import ImagePrompt
from neurond.engine.kv_cache import KvCache

_DRAWN = SamplingParams(temperature=1.0, top_p=0.9)


def rehearsal(
    cache: KvCache,
    step_tokens: int,
    num_rows: int,
    context_tokens: int,
    two_way_tokens: int = 0,
) -> ScheduledBatch:
    """Return a step of `step_tokens` tokens, the first `num_rows` of which get a draw.

    A sequence has as many rows as it has such tokens, as one whose drafts are checked or whose
    prompt is scored. All sequences have the blank block; what they write over each other is not
    read. None is longer than `context_tokens`: a model may have no more positions. The last
    `two_way_tokens` tokens are a run at the end of one of that length.
    """
    longest = min(cache.block_tokens, context_tokens)
    run = min(two_way_tokens, context_tokens)
    plain = step_tokens - run
    spans = [(0, longest)] * (plain // longest)
    if rest := plain % longest:
        spans.append((0, rest))
    with_images = []
    if run:
        span = (context_tokens - run, context_tokens)
        spans.append(span)
        row = Row(
            0, 0, 0, _DRAWN, array("i", [0]), 1, None, images=ImagePrompt(()), two_way=(span,)
        )
        with_images.append(ImageQueries(plain, span[0], run, row))
    stops = array("i", (stop for _, stop in spans))
    first_slot = cache.blank_block * cache.block_tokens
    batch = ScheduledBatch(
        token_ids=array("i", [0] * step_tokens),
        positions=array("i"),
        slot_mapping=array("i"),
        cu_seqlens_q=array("i", [0]),
        seq_lens_k=stops,
        block_tables=[
            array("i", [cache.blank_block] * blocks_for(stop, cache.block_tokens)) for stop in stops
        ],
        sample_rows=array("i", range(num_rows)),
        rows=[Row(0, 0, 0, _DRAWN, array("i", [0]), 1, None)] * num_rows,
        num_decodes=0,
        max_seqlen_q=max(stop - start for start, stop in spans),
        max_seqlen_k=max(stops),
        with_images=with_images,
    )
    for start, stop in spans:
        batch.positions.extend(range(start, stop))
        batch.slot_mapping.extend(
            first_slot + place % cache.block_tokens for place in range(start, stop)
        )
        batch.cu_seqlens_q.append(len(batch.positions))
    return batch
