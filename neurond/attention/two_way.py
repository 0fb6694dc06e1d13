"""Attention both ways, for backends that only attend causally."""

from itertools import groupby

from neurond.attention.base import AttentionBackend, AttentionBatch, AttentionPlan, JoinedPlan
from neurond.attention.reference import ReferenceBackend


class WithTwoWay:
    """Another backend, but for two-way sequences, which the reference attends from.

    They are images' tokens in prompts: few, once for a request, and by masks that torch takes.
    """

    def __init__(self, causal: AttentionBackend) -> None:
        self._causal = causal
        self._two_way = ReferenceBackend()
        self.name = causal.name
        self.page_multiple_tokens = causal.page_multiple_tokens
        self.can_be_recorded = causal.can_be_recorded

    def plan(self, batch: AttentionBatch) -> AttentionPlan:
        """Prepare one step: a plan for each run of sequences of one kind."""
        if not any(batch.two_way):
            return self._causal.plan(batch)
        parts: list[tuple[AttentionPlan, AttentionBatch]] = []
        first = 0
        for is_two_way, run in groupby(batch.two_way):
            stop = first + len(list(run))
            part = batch.part(first, stop)
            backend = self._two_way if is_two_way else self._causal
            parts.append((backend.plan(part), part))
            first = stop
        return JoinedPlan(parts)
