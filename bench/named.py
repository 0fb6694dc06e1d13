"""What options of several programs take: some of a few names, a count."""

import argparse
from collections.abc import Callable, Iterable


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what reads names of `known`, with commas between them, for argparse."""
    known = list(known)

    def read(text: str) -> list[str]:
        given = text.split(",")
        unknown = [name for name in given if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"cannot use {unknown[0]!r}: there are {', '.join(known)}"
            )
        return given

    return read


def positive(text: str) -> int:
    """Read a count, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"cannot use {text!r}: give a number from 1")
    return int(text)
