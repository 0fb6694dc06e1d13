"""A peer of `bench.peers` whose server is the token server.

`python -m tests.fakes.peers CACHE PAGE` is that program with W1 of such a peer alone, whose streams
never end.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.peers import __main__ as program
from bench.peers import session
from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Entry, Launch
from tests.fakes.ports import free_ports
from tests.fakes.token_server import save_tokenizer

HOLD_AFTER = 64
"""Tokens: a stream that warms up has fewer, one of W1 more."""


class FakeWeights:
    def __init__(self, cache: Cache, model_id: str) -> None:
        self.tokenizer = cache.root / "tokenizer.json"
        save_tokenizer(self.tokenizer)


class FakePeer:
    """Notes how often it was prepared and launched."""

    version, formats, entries = "1", ("int8", "int4"), ("",)

    def __init__(
        self,
        name: str = "peer",
        *,
        refuses: bool = False,
        hold_after: int = 0,
        reload: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.refuses = refuses
        self.prepared = self.launched = 0
        self._hold_after = hold_after
        self._reload = reload

    @classmethod
    def formats_of(cls, model: str) -> Sequence[str]:
        return cls.formats

    def prepare(self) -> None:
        self.prepared += 1
        if self.refuses:
            raise Unavailable("it needs AVX-512")

    def launch(
        self, weights: FakeWeights, weight_format: str, shape: object, *, fresh: bool
    ) -> Launch:
        self.launched += 1
        (port,) = free_ports(1)
        module = ("-m", "tests.fakes.token_server", str(port), str(self._hold_after))
        entry = Entry(f"http://127.0.0.1:{port}", "m")
        return Launch([sys.executable, *module], {}, [entry], reload=self._reload)


class HoldingPeer(FakePeer):
    def __init__(self, cache: Cache, threads: int) -> None:
        super().__init__(hold_after=HOLD_AFTER)


def main(cache: str, page: str) -> int:
    session.Weights = FakeWeights
    program.PEERS = {"cortex": HoldingPeer}
    program.PAGE = Path(page)
    chosen = ("--peers", "cortex", "--models", "smollm2", "--workloads", "W1", "--formats", "int4")
    sys.argv[1:] = ["--cache", cache, *chosen]
    return program.main()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
