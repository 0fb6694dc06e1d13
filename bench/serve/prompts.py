"""Prompts of a given number of tokens, give or take one; only what is meant to be shared is."""

import random
from pathlib import Path

from tokenizers import Tokenizer

VOCABULARY = (
    "river mountain signal copper garden window letter engine market shadow winter planet "
    "harbor castle forest silver mirror bridge doctor teacher captain painter farmer story "
    "music science history number color weather journey island summer village kitchen bottle "
    "candle paper pocket button ladder hammer needle basket blanket carpet curtain dinner "
    "morning evening quickly slowly bright quiet heavy gentle ancient modern hidden broken "
    "golden distant careful walks finds builds carries opens follows remembers explains "
    "describes measures compares"
)


class PromptMaker:
    """Makes random texts; every call with another seed gives another text.

    `tokenizer_file` is the model's tokenizer.json.
    """

    def __init__(self, tokenizer_file: Path, seed: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._random = random.Random(seed)
        self._words = VOCABULARY.split()

    def text(self, num_tokens: int) -> str:
        """Return words that encode to `num_tokens` tokens, give or take one at the cut."""
        ids: list[int] = []
        while len(ids) < num_tokens:
            sentence = (
                " ".join(self._random.choice(self._words) for _ in range(num_tokens + 8)) + "."
            )
            ids += self._tokenizer.encode(sentence, add_special_tokens=False).ids
        return str(self._tokenizer.decode(ids[:num_tokens]))

    def count(self, text: str) -> int:
        """Return how many tokens `text` has when it is encoded anew."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def number(self) -> int:
        """Return a random seed for a request."""
        return self._random.randrange(1 << 31)
