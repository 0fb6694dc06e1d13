"""Progress on the terminal."""

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from cortexd.admin.types import Draining


def drain_lines(name: str, *, quiet: bool) -> Callable[[Any], None]:
    """Return what takes `Draining` off the socket and says on stderr when the number changes."""
    told = 0

    def show(value: Any) -> None:
        nonlocal told
        left = msgspec.convert(value, Draining).in_flight
        if left != told and not quiet:
            print(f"{name}: {left} requests still run", file=sys.stderr)
        told = left

    return show
