"""What peers that are packages on PyPI have in common."""

from collections.abc import Sequence
from pathlib import Path

from bench.peers.cache import Cache
from bench.peers.commands import environment


class PythonPeer:
    """Base of a peer with an environment of its own."""

    name: str

    def __init__(self, cache: Cache, threads: int) -> None:
        self._cache = cache
        self._threads = threads
        self._binaries = Path()

    def _install(self, wanted: Sequence[str]) -> None:
        self._binaries = environment(self._cache, self.name, wanted)
