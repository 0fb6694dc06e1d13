"""A runner without a model: each token is a hash of all that a real one would depend on.

What it "computes" for a token goes into the slot that the batch names and depends on what the
block table finds for the token before, as keys and values do. A token is chosen by a hash over
everything the block table finds, of those that a grammar allows. So a wrong table, a block that two
sequences write, a stale cached block or a missed chunk gives other tokens than `expected_tokens`,
which knows no blocks. A placeholder of an image depends on that image, and one that is seen both
ways on its whole run.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from cortex_core.canonical import SamplingParams
from cortex_core.errors import CortexError, ErrorInfo
from neurond.engine.batch import Row, SampledToken, ScheduledBatch
from neurond.engine.images import ImagePrompt, TokenRuns
from neurond.engine.masks import masks_of
from neurond.engine.query_parts import query_parts
from tests.fakes.grammar_walks import bits_of

VOCAB_SIZE = 61


class FakeRunner:
    """Keeps its K/V by slot; raises or fails rows where a test asks it to."""

    def __init__(
        self,
        block_tokens: int,
        vocab_size: int = VOCAB_SIZE,
        *,
        max_tokens: int | None = None,
        max_sequences: int | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.num_steps = 0
        self.num_computed_tokens = 0
        self.last_batch: ScheduledBatch | None = None
        self.raise_next: CortexError | None = None
        self.failing_streams: dict[int, ErrorInfo] = {}
        self._block_tokens = block_tokens
        self._max_tokens = max_tokens
        self._max_sequences = max_sequences
        self._states: dict[int, int] = {}

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        check_batch(batch)
        assert self._max_tokens is None or batch.num_tokens <= self._max_tokens
        assert self._max_sequences is None or batch.num_sequences <= self._max_sequences
        self.num_steps += 1
        self.last_batch = batch
        if self.raise_next is not None:
            error, self.raise_next = self.raise_next, None
            raise error
        self.num_computed_tokens += batch.num_tokens
        for index in range(batch.num_sequences):
            self._compute(batch, index)
        masks = masks_of(batch.rows)
        allowed = masks.allowed or [None] * len(batch.rows)
        return masks.settle(
            [
                self._choose(batch, flat, row, mask)
                for flat, row, mask in zip(batch.sample_rows, batch.rows, allowed, strict=True)
            ]
        )

    def _compute(self, batch: ScheduledBatch, index: int) -> None:
        table = batch.block_tables[index]
        at = batch.cu_seqlens_q[index]
        rows = [queries.row for queries in batch.with_images if queries.at == at]
        images, two_way = (rows[0].images, rows[0].two_way) if rows else (None, ())
        for flat in range(at, batch.cu_seqlens_q[index + 1]):
            position = batch.positions[flat]
            before = self._states[self._slot(table, position - 1)] if position else 0
            state = _state(before, batch.token_ids[flat], position, images)
            self._states[batch.slot_mapping[flat]] = state
            for place in _run_ending(two_way, position):
                slot = self._slot(table, place)
                self._states[slot] = hash((self._states[slot], state))

    def _choose(
        self, batch: ScheduledBatch, flat: int, row: Row, mask: array[int] | None
    ) -> SampledToken | ErrorInfo:
        if row.stream in self.failing_streams:
            return self.failing_streams[row.stream]
        if row.scored is not None:
            # What a token's score depends on: all tokens before it, whose states are read below.
            table = batch.block_tables[bisect_right(batch.cu_seqlens_q, flat) - 1]
            state = self._states[self._slot(table, batch.positions[flat])]
            return SampledToken(row.scored, score_of(state, row.scored))
        table = batch.block_tables[bisect_right(batch.cu_seqlens_q, flat) - 1]
        states = [self._states[self._slot(table, i)] for i in range(batch.positions[flat] + 1)]
        counts = row.counts
        seen: tuple[object, ...] = ()
        if counts is not None:
            seen = (tuple(sorted(counts.prompt)), tuple(sorted(counts.output.items())))
        key = row.seed, row.choice, row.num_output_tokens, seen
        if mask is not None:
            choices = sorted(bits_of(mask))
            return SampledToken(choices[_choice(states, *key, len(choices))])
        return SampledToken(_choice(states, *key, self.vocab_size))

    def _slot(self, table: array[int], position: int) -> int:
        block, offset = divmod(position, self._block_tokens)
        return table[block] * self._block_tokens + offset


def score_of(state: int, token_id: int) -> float:
    """Return the log probability of a token behind those that made `state`."""
    return -float(hash((state, token_id)) % 1000)


def expected_scores(prompt: Sequence[int]) -> list[float]:
    """Return the scores of a prompt's tokens behind the first."""
    scores: list[float] = []
    state = 0
    for position, (token_id, following) in enumerate(itertools.pairwise(prompt)):
        state = _state(state, token_id, position)
        scores.append(score_of(state, following))
    return scores


def expected_tokens(
    prompt: Sequence[int],
    *,
    num_tokens: int,
    sampling: SamplingParams,
    seed: int,
    choice: int = 0,
    num_replayed_tokens: int = 0,
    vocab_size: int = VOCAB_SIZE,
    images: ImagePrompt | None = None,
    two_way: TokenRuns = (),
) -> list[int]:
    """Return what a sequence gets when it is alone, without blocks, chunks, drafts or a batch."""
    tokens = list(prompt)
    num_prompt_tokens = len(tokens) - num_replayed_tokens
    states: list[int] = []
    for _ in range(num_tokens):
        for position in range(len(states), len(tokens)):
            state = _state(states[-1] if states else 0, tokens[position], position, images)
            states.append(state)
            for place in _run_ending(two_way, position):
                states[place] = hash((states[place], state))
        seen: tuple[object, ...] = ()
        if sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty:
            output = Counter(tokens[num_prompt_tokens:])
            seen = (
                tuple(sorted(set(tokens[:num_prompt_tokens]))),
                tuple(sorted(output.items())),
            )
        key = seed, choice, len(tokens) - num_prompt_tokens, seen
        tokens.append(_choice(states, *key, vocab_size))
    return tokens[len(prompt) :]


def check_batch(batch: ScheduledBatch) -> None:
    """Assert what `ScheduledBatch` promises."""
    starts = batch.cu_seqlens_q
    lengths = [stop - start for start, stop in itertools.pairwise(starts)]
    assert sum(part.num_queries for part in query_parts(batch)) == batch.num_tokens
    assert starts[0] == 0
    assert starts[-1] == batch.num_tokens == len(batch.positions) == len(batch.slot_mapping)
    assert min(lengths) >= 1
    assert lengths[: batch.num_decodes] == [1] * batch.num_decodes
    assert batch.max_seqlen_q == max(lengths)
    assert batch.max_seqlen_k == max(batch.seq_lens_k)
    assert len(batch.block_tables) == batch.num_sequences
    assert len(set(batch.slot_mapping)) == batch.num_tokens, "two tokens share a slot"
    for index, length in enumerate(lengths):
        stop = batch.seq_lens_k[index]
        positions = batch.positions[starts[index] : starts[index + 1]]
        assert list(positions) == list(range(stop - length, stop))
    for flat, row in zip(batch.sample_rows, batch.rows, strict=True):
        if row.scored is not None:
            assert row.token_ids[batch.positions[flat] + 1] == row.scored
            continue
        seen = [*row.token_ids, *row.drafts]
        assert batch.positions[flat] + 1 == len(seen)
        assert batch.token_ids[flat] == seen[-1]


def _state(before: int, token_id: int, position: int, images: ImagePrompt | None = None) -> int:
    shown = images.images if images is not None else ()
    keys = [image.key for image in shown if position in image.places]
    return hash((before, token_id, position, *keys))


def _run_ending(two_way: TokenRuns, position: int) -> range:
    """Return the places of the run whose last token is at `position`; none if there is none."""
    return next((range(*run) for run in two_way if run[1] == position + 1), range(0))


def _choice(
    states: list[int],
    seed: int,
    choice: int,
    num_output_tokens: int,
    seen: tuple[object, ...],
    vocab_size: int,
) -> int:
    return hash((tuple(states), seed, choice, num_output_tokens, seen)) % vocab_size
