"""Turns what the scheduler picked into the flat columns of a batch.

Runs once in every step, so the decode part is one plain loop without calls.
"""

from array import array

from neurond.engine.batch import Row, ScheduledBatch
from neurond.engine.sequence import Sequence

Chunk = tuple[Sequence, int]
"""A sequence and how many of its next tokens to compute in this step."""


def assemble(decodes: list[Sequence], prefills: list[Chunk]) -> ScheduledBatch:
    """Return the batch of one token of each of `decodes`, then the chunks of `prefills`."""
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
        rows.append(seq.row)
    batch.token_ids.extend(token_ids)
    batch.positions.extend(positions)
    batch.slot_mapping.extend(slots)
    batch.seq_lens_k.extend([position + 1 for position in positions])


def _add_prefill(batch: ScheduledBatch, seq: Sequence, num_tokens: int) -> None:
    start = seq.num_computed
    stop = start + num_tokens
    batch.token_ids.extend(seq.token_ids[start:stop])
    batch.positions.extend(range(start, stop))
    batch.slot_mapping.extend(seq.table.slots(start, stop))
    batch.cu_seqlens_q.append(len(batch.token_ids))
    batch.seq_lens_k.append(stop)
    batch.block_tables.append(seq.table.blocks)
    batch.max_seqlen_q = max(batch.max_seqlen_q, num_tokens)
    if stop == len(seq.token_ids):
        batch.sample_rows.append(len(batch.token_ids) - 1)
        batch.rows.append(seq.row)
