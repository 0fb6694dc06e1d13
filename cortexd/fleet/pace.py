"""How often a node is asked while something is loading on it. Pure."""

from typing import Final

from cortex_core.ids import NodeName

SHORTEST_S: Final = 0.05
SHARE: Final = 0.1
"""Of the time that it has been loading: news of a load come at most so much later."""


class LoadingPace:
    """Nodes are asked often at first, for loads that take a moment, and then ever less often."""

    def __init__(self, longest_s: float) -> None:
        """`longest_s` bounds the time between two polls."""
        self._longest_s = longest_s
        self._since: dict[NodeName, float] = {}

    def interval_s(self, node: NodeName, now: float) -> float:
        """Return the seconds to the next poll of a node on which something is loading."""
        loading_s = now - self._since.setdefault(node, now)
        return min(self._longest_s, max(SHORTEST_S, SHARE * loading_s))

    def settled(self, node: NodeName) -> None:
        """Nothing is loading there; the next load begins anew. Idempotent."""
        self._since.pop(node, None)
