"""One request's times and counts, handed to the metrics when it ends."""

from collections.abc import Callable
from typing import Literal

from cortex_core.canonical import Usage
from cortex_core.errors import CortexError
from cortexd.metrics import GatewayMetrics

Outcome = Literal["completed", "cancelled"] | CortexError


class RequestRecord:
    """Begins with the request. `clock` gives monotonic seconds."""

    def __init__(self, metrics: GatewayMetrics, model: str, clock: Callable[[], float]) -> None:
        self.node = ""
        self._metrics = metrics
        self._model = model
        self._clock = clock
        self._began_at = clock()
        self._first_at: float | None = None

    def token(self) -> None:
        """Note that something of the answer came; the first time counts."""
        if self._first_at is None:
            self._first_at = self._clock()

    def continued(self) -> None:
        """Count that the stream goes on elsewhere; call it before `node` changes."""
        self._metrics.of(self._model, self.node).continued.inc()

    def end(self, used: Usage, outcome: Outcome) -> None:
        """Count the request, which used so many tokens. Called once."""
        now = self._clock()
        counts = self._metrics.of(self._model, self.node)
        counts.requests.inc()
        counts.duration_s.observe(now - self._began_at)
        if isinstance(outcome, CortexError):
            self._metrics.count_error(self._model, self.node, outcome.code)
        elif outcome == "cancelled":
            counts.cancelled.inc()
        counts.prompt_tokens.inc(used.prompt_tokens)
        counts.cached_tokens.inc(used.cached_tokens)
        tokens = used.completion_tokens
        counts.completion_tokens.inc(tokens)
        if self._first_at is not None:
            counts.ttft_s.observe(self._first_at - self._began_at)
            if tokens > 1 and now > self._first_at:
                counts.tokens_per_s.observe((tokens - 1) / (now - self._first_at))
