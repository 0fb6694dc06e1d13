"""Guesses at the next tokens of a sequence from what stands in it already: prompt lookup.

Text is copied often, by people and by models: code that is edited, names, quotations. So what
followed the last few tokens when they stood in the sequence before is a fair guess at what follows
them now. A step then computes the guessed tokens behind the last one, all at once, and the sampler
chooses at each of these places as it would have anyway; guesses that it chooses too are steps
saved, and the first that it does not choose ends the rest. A guess changes when a token is chosen,
never which.

Where a grammar holds the answer, a guess ends before what the grammar refuses or ends with. Tokens
that it leaves no choice about are drafted as well; they always come true.
"""

from __future__ import annotations

from array import array
from typing import Final

from neurond.engine.batch import Grammar

NGRAM_TOKENS: Final = 3
"""Tokens that have to stand there as they stood before; fewer agree by chance too often."""
MAX_DRAFT_TOKENS: Final = 5
"""One stream then has 6 rows, which the CPU kernels multiply at once."""
FIRST_DRAFT_TOKENS: Final = 3
LONGEST_REST: Final = 64
INDEXED_PER_STEP: Final = 1024
"""A long prompt is indexed over several steps: about 0.2 ms in each."""
_LEAST_SLOTS, _MOST_SLOTS = 1 << 10, 1 << 15


class NgramIndex:
    """Where n-grams of one sequence stood last; constant work for each token.

    A table of fixed size, at most 128 KiB, by hash of the n-gram. What collides is overwritten, so
    a look-up compares the tokens themselves, and of a sequence beyond the table's size the older
    part is forgotten.
    """

    def __init__(self, num_tokens: int) -> None:
        """`num_tokens` is about how long the sequence is going to be."""
        slots = min(max(1 << (2 * num_tokens).bit_length(), _LEAST_SLOTS), _MOST_SLOTS)
        self._mask = slots - 1
        self._follower = array("i", bytes(4 * slots))
        """Place of the token behind an n-gram; 0 for none, as no n-gram ends there."""
        self._next = NGRAM_TOKENS

    def index(self, token_ids: array[int]) -> None:
        """Take in what was appended, `INDEXED_PER_STEP` tokens at most."""
        follower, mask = self._follower, self._mask
        # The last n-gram has no follower yet.
        stop = min(len(token_ids), self._next + INDEXED_PER_STEP)
        for place in range(self._next, stop):
            ngram = tuple(token_ids[place - NGRAM_TOKENS : place])
            follower[hash(ngram) & mask] = place
        self._next = max(self._next, stop)

    def distance(self, token_ids: array[int]) -> int:
        """Return how many tokens before its end the last n-gram ended before; 0 if it is new."""
        end = len(token_ids)
        if end < NGRAM_TOKENS:
            return 0
        place = self._follower[hash(tuple(token_ids[-NGRAM_TOKENS:])) & self._mask]
        if not place or token_ids[place - NGRAM_TOKENS : place] != token_ids[-NGRAM_TOKENS:]:
            return 0
        return end - place


class Drafter:
    """Drafts of one sequence: as long as its guesses come true, and rarely while they do not.

    What is copied is copied on: a guess continues the text that the last one was taken from, as
    long as its last token is the sequence's, also where the n-gram has stood elsewhere since, and
    behind a word that was replaced.

    After a step in which `a` drafted tokens were chosen, the next draft has up to `2 a + 1`; after
    one in which none was, nothing is drafted for a while, which doubles each time.
    """

    def __init__(self) -> None:
        self._index: NgramIndex | None = None
        self._distance = 0  # to the text that is copied
        self._length = FIRST_DRAFT_TOKENS
        self._rest = 0
        self._next_rest = 1
        self._is_guess = True  # the last draft

    def draft(self, token_ids: array[int], most: int, grammar: Grammar | None = None) -> array[int]:
        """Return a guess at the next tokens, `most` at most; empty where there is none.

        It is fitting where there is a `grammar`.
        """
        guessed = self._guess(token_ids, most)
        self._is_guess = True
        if grammar is None:
            return guessed
        if guessed:
            del guessed[grammar.fitting(guessed) :]
        forced = grammar.forced()[:most] if len(guessed) < most else ()
        if len(forced) > len(guessed):
            self._is_guess = False
            return array("i", forced[: grammar.fitting(forced)])
        return guessed

    def verified(self, num_accepted: int) -> None:
        """Learn how many tokens of the last draft were chosen."""
        if not self._is_guess:
            return
        self._length = min(2 * num_accepted + 1, MAX_DRAFT_TOKENS)
        if num_accepted:
            self._next_rest = 1
        else:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, LONGEST_REST)

    def _guess(self, token_ids: array[int], most: int) -> array[int]:
        if self._index is None:
            self._index = NgramIndex(len(token_ids))
        self._index.index(token_ids)
        if self._rest:
            self._rest -= 1
            return array("i")
        if not self._distance or token_ids[-1] != token_ids[-1 - self._distance]:
            found = self._index.distance(token_ids)
            if not found:
                return array("i")
            self._distance = found
        return continuation(token_ids, self._distance, min(most, self._length))


def continuation(token_ids: array[int], distance: int, most: int) -> array[int]:
    """Return `most` tokens as they follow `distance` tokens before the end.

    What repeats itself goes on repeating itself.
    """
    place = len(token_ids) - distance
    found = token_ids[place : place + most]
    while len(found) < most:
        found.append(found[len(found) - distance])
    return found


def most_drafts(num_decodes: int, max_rows: int) -> int:
    """Return how many tokens each of so many sequences may draft.

    Args:
        num_decodes: sequences that decode in the step.
        max_rows: rows that the step may have.
    """
    return min(MAX_DRAFT_TOKENS, max_rows // num_decodes - 1) if num_decodes else 0
