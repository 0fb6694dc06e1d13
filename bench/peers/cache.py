"""The folder that keeps what is installed, built, fetched and measured, outside of the checkout.

$CORTEX_BENCH_CACHE, else cortex-bench in the user's cache folder
    environments/PEER       virtual environment of a peer
    llama.cpp/              its source and build
    models/…                models as a node keeps them
    weights/MODEL/FORMAT    what was converted for peers
    state/NAME              state folders of `cortex up`
    logs/…                  output of servers, installs and builds
    results.jsonl           what was measured
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "CORTEX_BENCH_CACHE"


@dataclass(frozen=True)
class Cache:
    """Its folders; those that are asked for are made."""

    root: Path

    @property
    def results(self) -> Path:
        return self._made(self.root) / "results.jsonl"

    def folder(self, *parts: str) -> Path:
        """Return a folder below, which then exists."""
        return self._made(self.root.joinpath(*parts))

    def log(self, name: str) -> Path:
        """Return the file for the output of what has that name."""
        return self.folder("logs") / f"{name}.log"

    def _made(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def default_cache() -> Cache:
    """Return the cache that the environment names, else the user's."""
    if given := os.environ.get(VARIABLE):
        return Cache(Path(given))
    base = os.environ.get("XDG_CACHE_HOME")
    return Cache((Path(base) if base else Path.home() / ".cache") / "cortex-bench")
