"""What a peer is: how it is prepared, started and asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.peers.weights import Weights
from cortex_core.ids import ModelId


@dataclass(frozen=True)
class Shape:
    """What a server has to have room for."""

    streams: int
    context_tokens: int
    """Of each stream."""


@dataclass(frozen=True)
class Entry:
    """A place where a server can be asked."""

    url: str
    model: str
    name: str = ""
    """Tells it from the same server's others."""
    extra: dict[str, Any] = field(default_factory=lambda: {"ignore_eos": True})
    process: str | None = None
    """Text in the command line of the process that serves it with its children; None for all."""


@dataclass(frozen=True)
class Launch:
    """A command that runs until it is stopped, and what it then serves."""

    argv: Sequence[str]
    env: dict[str, str]
    entries: Sequence[Entry]
    ready: str | None = None
    """What the server says when nothing is under way any more; None if it says nothing."""
    reload: Callable[[], float] | None = None
    """Unloads the model and loads it again; returns the seconds of loading."""

    alone: "Launch | None" = None
    """The server without what stands before it, where that is what a start is timed of."""

    def entry(self, name: str) -> Entry:
        """Return the entry of that name."""
        return next(entry for entry in self.entries if entry.name == name)


class Peer(Protocol):
    """A server, in one version."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @staticmethod
    def formats_of(model: ModelId) -> Sequence[str]:
        """Return the formats of that model's weights that it is measured with."""
        ...

    @property
    def entries(self) -> Sequence[str]:
        """Names of the places where each of its servers is asked, as in `Launch.entries`.

        `Launch.alone` serves the first of them, whose start is that of it alone.
        """
        ...

    def prepare(self) -> None:
        """Install it, once.

        Raises:
            Unavailable: it cannot be had here.
        """
        ...

    def launch(self, weights: Weights, weight_format: str, shape: Shape, *, fresh: bool) -> Launch:
        """Make the weights it needs and say how it is started; `prepare` came before.

        Args:
            fresh: it is to find nothing that an earlier start has left to make this one faster.

        Raises:
            Unavailable: it cannot serve them.
        """
        ...
