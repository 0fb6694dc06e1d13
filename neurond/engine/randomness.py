"""Randomness as a function of what is sampled, not of when, where or beside whom.

A number is drawn for (seed, choice, step) by mixing the three through SplitMix64's finaliser: the
same request gives the same numbers at any load, after preemption and on another node.
"""

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
UNIFORM_BITS = 48
"""Few enough that a uniform times a float64 total stays below the total."""


def _mix(state: int) -> int:
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
    return state ^ (state >> 31)


def uniform(seed: int, choice: int, step: int) -> float:
    """Return a number from 0 up to and without 1, of 48 random bits."""
    state = _mix((seed + _GAMMA) & _MASK)
    state = _mix((state + (choice + 1) * _GAMMA) & _MASK)
    state = _mix((state + (step + 1) * _GAMMA) & _MASK)
    return (state >> (64 - UNIFORM_BITS)) / (1 << UNIFORM_BITS)
