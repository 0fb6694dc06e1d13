"""A step's sequences as attention takes them: what is seen both ways apart from the rest."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neurond.engine.batch import ScheduledBatch
    from neurond.engine.images import TokenRuns


class QueryPart(NamedTuple):
    """Query tokens of a sequence that stand side by side."""

    sequence: int
    """Index in the batch."""
    num_queries: int
    kv_len: int
    """Keys of the sequence up to the last of the queries, its own included."""
    two_way: bool
    """Whether all the queries see all those keys."""


def query_parts(batch: ScheduledBatch) -> list[QueryPart]:
    """Return the parts of all sequences, in the order of the batch's tokens."""
    runs = {queries.at: queries.row.two_way for queries in batch.with_images}
    parts: list[QueryPart] = []
    bounds = zip(pairwise(batch.cu_seqlens_q), batch.seq_lens_k, strict=True)
    for index, ((at, end), kv_len) in enumerate(bounds):
        start = kv_len - (end - at)
        parts += _parts(index, start, kv_len, runs.get(at, ()))
    return parts


def _parts(sequence: int, start: int, stop: int, runs: TokenRuns) -> Iterator[QueryPart]:
    for first, behind in runs:
        if behind <= start or stop <= first:
            continue
        assert start <= first < behind <= stop, "a run of tokens is cut"
        if start < first:
            yield QueryPart(sequence, first - start, first, two_way=False)
        yield QueryPart(sequence, behind - first, behind, two_way=True)
        start = behind
    if start < stop:
        yield QueryPart(sequence, stop - start, stop, two_way=False)
