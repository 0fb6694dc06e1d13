"""What peers that are packages on PyPI have in common."""

from collections.abc import Sequence
from pathlib import Path

from bench.peers.cache import Cache
from bench.peers.commands import environment
from cortex_core.ids import ModelId


class PythonPeer:
    """Base of a peer with an environment of its own, which gets checkpoints in bfloat16."""

    name: str

    def __init__(self, cache: Cache, threads: int) -> None:
        self._cache = cache
        self._threads = threads
        self._binaries = Path()

    @staticmethod
    def formats_of(model: ModelId) -> Sequence[str]:
        """See `Peer.formats_of`."""
        del model
        return ("bf16",)

    def _install(self, wanted: Sequence[str]) -> None:
        self._binaries = environment(self._cache, self.name, wanted)
