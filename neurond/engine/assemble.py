"""Turns what the scheduler picked into the flat columns of a batch.

Runs once in every step, so the decode part is one plain loop without calls.
"""

from __future__ import annotations

from array import array

from neurond.engine.batch import ImageQueries, Row, ScheduledBatch
from neurond.engine.sequence import Sequence

Chunk = tuple[Sequence, int]
"""A sequence and how many of its next tokens to compute in this step."""

Draft = tuple[Sequence, "array[int]"]
"""A sequence that decodes, and guesses at the tokens behind the one it computes next."""


def assemble(
    decodes: list[Sequence], drafted: list[Draft], prefills: list[Chunk]
) -> ScheduledBatch:
    """Return the batch of one token of each of `decodes`, one and its drafts of each of `drafted`,
    then the chunks of `prefills`.
    """
    num_decodes = len(decodes)
    batch = ScheduledBatch(
        token_ids=array("i"),
        positions=array("i"),
        slot_mapping=array("i"),
        cu_seqlens_q=array("i", range(num_decodes + 1)),
        seq_lens_k=array("i"),
        block_tables=[],
        sample_rows=array("i", range(num_decodes)),
        rows=[],
        num_decodes=num_decodes,
        max_seqlen_q=min(1, num_decodes),
        max_seqlen_k=0,
    )
    _add_decodes(batch, decodes)
    for seq, drafts in drafted:
        _add_drafted(batch, seq, drafts)
    for seq, num_tokens in prefills:
        _add_prefill(batch, seq, num_tokens)
    batch.max_seqlen_k = max(batch.seq_lens_k)
    return batch


def _add_decodes(batch: ScheduledBatch, decodes: list[Sequence]) -> None:
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    tables = batch.block_tables
    rows: list[Row] = batch.rows
    for seq in decodes:
        position = seq.num_computed
        table = seq.table
        blocks = table.blocks
        index, offset = divmod(position, table.block_tokens)
        token_ids.append(seq.token_ids[position])
        positions.append(position)
        slots.append(blocks[index] * table.block_tokens + offset)
        tables.append(blocks)
        if seq.row.images is not None:
            batch.with_images.append(ImageQueries(len(rows), position, 1, seq.row))
        rows.append(seq.row)
    batch.token_ids.extend(token_ids)
    batch.positions.extend(positions)
    batch.slot_mapping.extend(slots)
    batch.seq_lens_k.extend([position + 1 for position in positions])


def _add_drafted(batch: ScheduledBatch, seq: Sequence, drafts: array[int]) -> None:
    first = len(batch.token_ids)
    _add_queries(batch, seq, seq.token_ids[seq.num_computed :] + drafts)
    batch.sample_rows.extend(range(first, len(batch.token_ids)))
    batch.rows.append(seq.row)
    batch.rows.extend([seq.row.behind(drafts[:stop]) for stop in range(1, len(drafts) + 1)])


def _add_prefill(batch: ScheduledBatch, seq: Sequence, num_tokens: int) -> None:
    stop = seq.num_computed + num_tokens
    first = len(batch.token_ids) - seq.num_computed
    _add_queries(batch, seq, seq.token_ids[seq.num_computed : stop])
    for place in seq.to_score(num_tokens):
        batch.sample_rows.append(first + place)
        batch.rows.append(seq.row.scoring(seq.token_ids[place + 1]))
    if stop == len(seq.token_ids):
        batch.sample_rows.append(len(batch.token_ids) - 1)
        batch.rows.append(seq.row)


def _add_queries(batch: ScheduledBatch, seq: Sequence, token_ids: array[int]) -> None:
    start = seq.num_computed
    stop = start + len(token_ids)
    if seq.row.images is not None:
        queries = ImageQueries(len(batch.token_ids), start, len(token_ids), seq.row)
        batch.with_images.append(queries)
    batch.token_ids.extend(token_ids)
    batch.positions.extend(range(start, stop))
    batch.slot_mapping.extend(seq.table.slots(start, stop))
    batch.cu_seqlens_q.append(len(batch.token_ids))
    batch.seq_lens_k.append(stop)
    batch.block_tables.append(seq.table.blocks)
    batch.max_seqlen_q = max(batch.max_seqlen_q, len(token_ids))
