"""The columns of a batch, spelled out for decodes, drafts and chunks."""

from array import array

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.assemble import assemble
from neurond.engine.batch import Row, TokenCounts
from neurond.engine.blocks import BlockTable
from neurond.engine.sequence import Sequence


def new_sequence(stream: int, tokens: range, blocks: list[int], num_computed: int) -> Sequence:
    return Sequence(
        request_id=RequestId(str(stream)),
        row=Row(stream, 0, 0, SamplingParams(), array("i", tokens), len(tokens), None),
        table=BlockTable(4, array("i", blocks)),
        stop_token_ids=frozenset(),
        max_length=100,
        arrival=stream,
        num_computed=num_computed,
    )


def test_decodes_come_first_and_unfinished_prompts_get_no_row() -> None:
    decode = new_sequence(1, range(10, 16), [3, 5], num_computed=5)
    unfinished = new_sequence(2, range(20, 30), [0, 1, 2], num_computed=4)
    last_chunk = new_sequence(3, range(40, 43), [9], num_computed=0)
    batch = assemble([decode], [], [(unfinished, 4), (last_chunk, 3)])
    assert list(batch.token_ids) == [15, 24, 25, 26, 27, 40, 41, 42]
    assert list(batch.positions) == [5, 4, 5, 6, 7, 0, 1, 2]
    assert list(batch.slot_mapping) == [21, 4, 5, 6, 7, 36, 37, 38]
    assert list(batch.cu_seqlens_q) == [0, 1, 5, 8]
    assert list(batch.seq_lens_k) == [6, 8, 3]
    assert [list(table) for table in batch.block_tables] == [[3, 5], [0, 1, 2], [9]]
    assert list(batch.sample_rows) == [0, 7]
    assert [row.stream for row in batch.rows] == [1, 3]
    assert (batch.num_decodes, batch.num_sequences, batch.num_tokens) == (1, 3, 8)
    assert (batch.max_seqlen_q, batch.max_seqlen_k) == (4, 8)


def test_drafts_stand_behind_their_token_with_a_row_each() -> None:
    decode = new_sequence(1, range(10, 16), [3, 5], num_computed=5)
    drafted = new_sequence(2, range(20, 23), [0, 7], num_computed=2)
    drafted.row.counts = TokenCounts(frozenset({20, 21}), {22: 1})
    batch = assemble([decode], [(drafted, array("i", [22, 40]))], [])
    assert list(batch.token_ids) == [15, 22, 22, 40]
    assert list(batch.positions) == [5, 2, 3, 4]
    assert list(batch.slot_mapping) == [21, 2, 3, 28]
    assert list(batch.cu_seqlens_q) == [0, 1, 4]
    assert list(batch.seq_lens_k) == [6, 5]
    assert list(batch.sample_rows) == [0, 1, 2, 3]
    assert [row.stream for row in batch.rows] == [1, 2, 2, 2]
    assert [row.num_output_tokens for row in batch.rows] == [0, 0, 1, 2]
    assert [row.counts and row.counts.output for row in batch.rows[1:]] == [
        {22: 1}, {22: 2}, {22: 2, 40: 1},
    ]  # fmt: skip
    assert (batch.num_decodes, batch.num_sequences) == (1, 2)
    assert (batch.max_seqlen_q, batch.max_seqlen_k) == (3, 6)


def test_columns_are_int32_in_one_piece() -> None:
    batch = assemble([new_sequence(1, range(6), [3, 5], num_computed=5)], [], [])
    for column in (batch.token_ids, batch.positions, batch.slot_mapping, batch.seq_lens_k):
        assert (column.typecode, column.itemsize) == ("i", 4)
