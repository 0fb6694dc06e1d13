"""What one engine step computes, and what comes back: the seam between scheduler and runner.

A batch is flat: the query tokens of all its sequences stand one after another, sequences with one
query token (decode) first, then those with drafted tokens behind it, then chunks of prompts
(prefill). Integer columns are `array('i')`,
that is int32 in one piece of memory, so that a runner makes a tensor of one without a loop
(`torch.frombuffer(column, dtype=torch.int32)`). Columns are made for each step and then belong to
the runner. Block tables and `Row.token_ids` are the scheduler's own, passed by reference: a runner
copies what it needs during `execute` and keeps no buffer over them, or they cannot grow.

No torch here; scheduler, runner and sampler all import this module.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

import msgspec

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from neurond.engine.images import ImagePrompt, TokenRuns

CERTAIN: Final = 1e30
"""Added to a logit, it makes its token the one that is chosen."""


@dataclass(slots=True)
class TokenCounts:
    """Tokens a sequence has seen, kept up to date by the scheduler as tokens are chosen."""

    prompt: frozenset[int]
    """Distinct tokens of the prompt, without replayed output."""
    output: dict[int, int]
    """Token id to its number of occurrences in the output, replayed output included."""


class Grammar(Protocol):
    """The form that one sequence's output is held to; see `neurond.engine.grammar`."""

    @property
    def is_complete(self) -> bool:
        """Whether the output has its form and nothing can follow."""
        ...

    @property
    def holds_end(self) -> bool:
        """Whether the output's end is part of its form, so that no end token is passed over."""
        ...

    def fork(self) -> Grammar:
        """Return one in the same state, for another sequence."""
        ...

    def advance(self, token_id: int) -> bool:
        """Take the next token of output; return whether the output is complete with it."""
        ...

    def fitting(self, token_ids: Sequence[int]) -> int:
        """Return how many of `token_ids` are worth drafting: they may come next, one after
        another, and behind each more has to be chosen.
        """
        ...

    def forced(self) -> Sequence[int]:
        """Return tokens that come next as nothing else is allowed; not always all there are."""
        ...

    def allowed(self) -> array[int] | None:
        """Return a bit for each token that may come next, in 32-bit words, lowest first.

        None where any may.

        Raises:
            CortexError: it cannot be told; the request fails.
        """
        ...


@dataclass(slots=True, eq=False)
class Row:
    """A sequence as its sampler sees it: one object for the sequence's whole life.

    During `Runner.execute` everything in `token_ids` and `drafts` has, or gets in this very step,
    its K/V; the token to choose stands behind them.
    """

    stream: int
    choice: int
    """Index among the request's choices; part of the random key."""
    seed: int
    """64 bits, of the request."""
    sampling: SamplingParams
    token_ids: array[int]
    """Prompt and output so far. Read only; not to be kept."""
    num_prompt_tokens: int
    """Where output begins in `token_ids`; replayed output is output."""
    counts: TokenCounts | None
    """Set if, and only if, `sampling` has a repetition, presence or frequency penalty."""
    grammar: Grammar | None = None
    """Has taken the output so far; advanced by the scheduler as tokens are chosen."""
    scored: int | None = None
    """A token of the prompt whose log probability is wanted, in place of a token to choose: the
    sampling parameters are such that it is chosen. The row is for this step only."""
    images: ImagePrompt | None = None
    """None where the prompt is all text."""
    two_way: TokenRuns = ()
    """Tokens of the prompt that see each other both ways, and so are computed in one step."""
    drafts: Sequence[int] = ()
    """Drafted tokens between `token_ids` and the token to choose; `counts` and `grammar` have
    taken them too.
    """

    @property
    def num_output_tokens(self) -> int:
        """Tokens of output so far, replayed and drafted ones included: the random counter.

        Randomness is a function of (`seed`, `choice`, this) and of nothing else.
        """
        return len(self.token_ids) - self.num_prompt_tokens + len(self.drafts)

    def scoring(self, token_id: int) -> Row:
        """Return a row that tells the log probability of `token_id` as this one's would."""
        sampling = SamplingParams(
            temperature=0.0, logprobs=self.sampling.logprobs, logit_bias={token_id: CERTAIN}
        )
        return replace(self, sampling=sampling, counts=None, grammar=None, scored=token_id)

    def behind(self, drafts: Sequence[int]) -> Row:
        """Return the row for the token behind `drafts`, as if they were chosen; for one step.

        They are fitting where there is a grammar.
        """
        counts, grammar = self.counts, self.grammar
        if counts is not None:
            output = Counter(counts.output)
            output.update(drafts)
            counts = TokenCounts(counts.prompt, output)
        if grammar is not None:
            grammar = grammar.fork()
            for token_id in drafts:
                grammar.advance(token_id)
        return replace(self, drafts=drafts, counts=counts, grammar=grammar)


class ImageQueries(NamedTuple):
    """The query tokens of one sequence whose prompt has images."""

    at: int
    """Where they begin among the tokens of the batch."""
    position: int
    """Where they begin in the sequence."""
    num_tokens: int
    row: Row


@dataclass(slots=True)
class ScheduledBatch:
    """One step: T query tokens of B sequences, of which S get a token chosen.

    Sequence `i` has the query tokens `cu_seqlens_q[i]` to `cu_seqlens_q[i + 1]`, which are the
    last ones of the `seq_lens_k[i]` it attends to. Never empty.
    """

    token_ids: array[int]  # [T]
    positions: array[int]  # [T]
    slot_mapping: array[int]  # [T] where K/V go: block id * block_tokens + offset in the block
    cu_seqlens_q: array[int]  # [B + 1] starts with 0
    seq_lens_k: array[int]  # [B]
    block_tables: list[array[int]]  # [B] of block ids; may be longer than seq_lens_k needs
    sample_rows: array[int]  # [S] ascending indices into the T tokens
    rows: list[Row]  # [S] parallel to sample_rows
    num_decodes: int
    """The first so many sequences have exactly one query token; B of them is a pure decode.

    Behind them stand those with drafts, each with a row for every query token. A chunk of a prompt
    with one token stands among the prefills, so `max_seqlen_q` can be 1 with fewer.
    """
    max_seqlen_q: int
    max_seqlen_k: int
    with_images: list[ImageQueries] = field(default_factory=list)
    """Every sequence whose prompt has images, whichever of its tokens are computed."""

    @property
    def num_sequences(self) -> int:
        return len(self.seq_lens_k)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


class RowFailed(Exception):
    """The step was not computed because of one sequence: it can be without that one."""

    def __init__(self, row: Row, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.row = row
        self.error = error


class SampledToken(msgspec.Struct, frozen=True, gc=False):
    """The token chosen for one row.

    Log probabilities are natural, before temperature and filters; None and empty unless
    `SamplingParams.logprobs` asked for them.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """Most likely tokens, best first, as (token id, log probability)."""


class Runner(Protocol):
    """What computes a batch. The engine calls it from the actor's one thread."""

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        """Write K/V for every query token and choose one token for each of `batch.rows`.

        Returns:
            One entry for each row, in order. An `ErrorInfo` fails the request of that row alone,
            for example where its logits are not finite.

        Raises:
            RowFailed: the step was not computed; the request of that row fails.
            CortexError: the step was not computed; every request in the batch fails with it.
            Any other exception is a defect or a broken device, and ends the actor.
        """
        ...
