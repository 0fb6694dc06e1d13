"""How many tokens of prompts a step may take beside those who decode.

Who decodes waits for the whole step. So beside decodes, prompts get what keeps the step within
`SLOWDOWN` times the time of one without prompts, or within `LONGEST_STEP_S` where that is more: 40
tokens a second are faster than anyone reads, and smaller chunks would only make prompts pay the
fixed part of a step more often. Where more sequences could compute prompts than decode, the bound
is as many times longer as they are more, up to `CROWDED_STEP_S`: else the few would have whole
answers before the last of the many had its first token. Who decodes in another engine of the device
waits as well, between two steps of its own: for it a step keeps within the same bound, also where
nobody decodes in it. Prompts get `LEAST_TOKENS` at least, and all there is while nobody decodes.
But of `QUIET_EVERY` steps with decodes one is without prompts. Where prompts never end those who
decode grow longer meanwhile, and what they cost would be taken for what prompts cost.

Times are told, not measured here. An estimate moves by a quarter of what a step differs from it,
and a step counts as half or twice as expected at most, so that one that was held up (a neighbour,
memory touched for the first time) does not change the pace for long. What a step without prompts
takes may be known from other numbers of decodes only, or from long ago: one with prompts that takes
no longer shows that it is less, and says nothing about what a token costs.
"""

LONGEST_STEP_S = 0.025
SLOWDOWN = 1.75
"""Of the usual step; of twenty the slowest is then within twice the time."""
LEAST_TOKENS = 16
"""Fewer say little about what a token costs, too."""
CROWDED_STEP_S = 0.1
"""Ten tokens a second still are as fast as one reads."""
QUIET_EVERY = 8
_WEIGHT = 0.25


class PrefillPace:
    """What steps of one engine cost, and what they may. One writer: its scheduler."""

    def __init__(self) -> None:
        self._quiet_s: dict[int, float] = {}  # by the bit length of the number of decoded tokens
        self._token_s: float | None = None  # of a prompt
        self._mixed_steps = 0  # since those who decode were alone

    def took(self, decode_tokens: int, prefill_tokens: int, seconds: float) -> None:
        """Learn from a step that computed so many query tokens of either kind."""
        size = decode_tokens.bit_length()
        self._mixed_steps = self._mixed_steps + 1 if decode_tokens and prefill_tokens else 0
        if not prefill_tokens:
            self._quiet_s[size] = _towards(self._quiet_s.get(size), seconds)
            return
        if prefill_tokens < LEAST_TOKENS:
            return
        quiet_s = self._quiet(decode_tokens)
        if seconds > quiet_s:
            self._token_s = _towards(self._token_s, (seconds - quiet_s) / prefill_tokens)
        elif decode_tokens:
            prompts_s = prefill_tokens * (self._token_s or 0.0)
            known_s = self._quiet_s.get(size, quiet_s)
            self._quiet_s[size] = _towards(known_s, max(seconds - prompts_s, 0.0))

    def prefill_tokens(
        self, decode_tokens: int, most: int, num_prompts: int = 0, num_elsewhere: int = 0
    ) -> int:
        """Return how many tokens of prompts go with so many decoded ones, `most` at most.

        It is 0 where those who decode are to be alone for once.

        Args:
            num_prompts: sequences that could compute their prompts now, if there were tokens.
            num_elsewhere: sequences that decode in steps of others between this engine's.
        """
        num_decodes = decode_tokens + num_elsewhere
        if not num_decodes or not self._token_s:
            return most
        if decode_tokens and self._mixed_steps >= QUIET_EVERY - 1:
            return 0
        bound_s = max(SLOWDOWN * self._quiet(max(1, decode_tokens)), LONGEST_STEP_S)
        crowded_s = min(bound_s * num_prompts / num_decodes, CROWDED_STEP_S)
        # Without decodes what is fixed in a step is in what its tokens cost.
        spare_s = max(bound_s, crowded_s) - self._quiet(decode_tokens)
        if most * self._token_s <= spare_s:
            return most
        return min(most, max(LEAST_TOKENS, int(spare_s / self._token_s)))

    def _quiet(self, decode_tokens: int) -> float:
        """Return what a step without prompts takes, as far as steps of about that size tell."""
        if not decode_tokens or not self._quiet_s:
            return 0.0
        size = decode_tokens.bit_length()
        return self._quiet_s[min(self._quiet_s, key=lambda known: abs(known - size))]


def _towards(estimate: float | None, found: float) -> float:
    if not estimate:
        return found
    believed = min(max(found, estimate / 2), estimate * 2)
    return estimate + _WEIGHT * (believed - estimate)
