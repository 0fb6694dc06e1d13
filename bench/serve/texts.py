"""One stream on texts that differ in how well their continuation can be guessed from them.

Speculation by n-grams gains on the one and must not lose on the other.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.serve.figures import told
from bench.serve.prompts import PromptMaker
from bench.serve.steady import SHORT_OUTPUT_TOKENS, Found, figures_of_single
from bench.serve.target import Target

LICENSE: Final = Path(__file__).parents[2] / "LICENSE"
"""Prose: in a passage of random words each would stand several times, with another one after it."""
PASSAGE_WORDS: Final = 160
LEAD_WORDS: Final = 12
OPENINGS: Final = """\
The ferry had stopped running in October, so the only way to the island was with old Tomas, who \
charged nothing and told everyone the same story on the way over. It began, as always,
Bread is older than writing. Long before anyone kept accounts of grain, people ground wild seeds \
between stones, mixed the meal with water and baked it on the ashes. What changed was
Dear Miriam, I have put off this letter for weeks, because I did not know how to tell you what we \
found when we opened the cellar of the house in Lisbon. First of all,
A good map leaves almost everything out. The surveyor who walks a valley sees trees, fences, \
weather and cows, and draws a few brown lines. The reason is simple:""".splitlines()


def passage_twice(words: Sequence[str]) -> tuple[str, str]:
    """Return the first of `words` twice with the beginning of a third time, and what is to come."""
    lead = " ".join(words[:LEAD_WORDS])
    rest = " ".join(words[LEAD_WORDS:PASSAGE_WORDS])
    return "\n\n".join((f"{lead} {rest}", f"{lead} {rest}", lead)), rest


async def copying(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """A passage twice, and the beginning of the third time; greedy."""
    words = LICENSE.read_text(encoding="utf-8").split()
    results, shares = [], []
    for _ in range(repetitions):
        at = prompts.number() % (len(words) - PASSAGE_WORDS)
        prompt, rest = passage_twice(words[at:])
        result = await target.complete(prompt, SHORT_OUTPUT_TOKENS)
        results.append(result)
        shares.append(copied_share(rest, result.text))
    return results, {**figures_of_single(results), **told("copied_share", shares)}


async def prose(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """The continuation of an opening, sampled: greedy, small models repeat themselves soon."""
    results = []
    for number in range(repetitions):
        sampling = {"temperature": 0.8, "top_p": 0.95, "seed": prompts.number()}
        opening = OPENINGS[number % len(OPENINGS)]
        results.append(await target.complete(opening, SHORT_OUTPUT_TOKENS, sampling=sampling))
    return results, figures_of_single(results)


def copied_share(expected: str, text: str) -> float:
    """Return how much of `text`, from its beginning, is that of `expected`."""
    wanted, said = expected.strip(), text.strip()
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(wanted, said, strict=False))
    return len(list(same)) / len(said) if said else 0.0
