"""One request's times and counts, handed to the metrics and told to the log when it ends."""

import logging
from collections.abc import Callable
from typing import Literal

from cortex_core.canonical import Usage
from cortex_core.errors import CortexError, InternalError
from cortex_core.ids import ModelId, RequestId
from cortex_core.logs import kv
from cortexd.metrics import GatewayMetrics

log = logging.getLogger(__name__)

Outcome = Literal["completed", "cancelled"] | CortexError


class RequestRecord:
    """Begins with the request.

    Args:
        request_id: of the request.
        path: where it came in.
        model: that serves it.
        clock: gives monotonic seconds.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        *,
        request_id: RequestId,
        path: str,
        model: ModelId,
    ) -> None:
        self.node = ""
        self._request_id = request_id
        self._path = path
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
        """Count and log the request, which used so many tokens. Called once."""
        now = self._clock()
        self._count(now, used, outcome)
        self._log(now, used, outcome)

    def _count(self, now: float, used: Usage, outcome: Outcome) -> None:
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

    def _log(self, now: float, used: Usage, outcome: Outcome) -> None:
        """Tell all that is known of the request in one line, also where it failed."""
        first_at = self._first_at
        told = kv(
            request_id=self._request_id,
            path=self._path,
            model=self._model,
            node=self.node or None,
            prompt_tokens=used.prompt_tokens,
            cached_tokens=used.cached_tokens,
            completion_tokens=used.completion_tokens,
            ttft_s=None if first_at is None else first_at - self._began_at,
            duration_s=now - self._began_at,
            code=outcome.code if isinstance(outcome, CortexError) else None,
            cause=outcome.message if isinstance(outcome, CortexError) else None,
        )
        if not isinstance(outcome, CortexError):
            log.info("request %s", outcome, extra=told)
        elif isinstance(outcome, InternalError) and outcome.__cause__ is not None:
            log.error("request failed", extra=told, exc_info=outcome.__cause__)
        elif first_at is not None:
            log.warning("stream broken off", extra=told)
        else:
            level = logging.WARNING if outcome.is_for_good else logging.INFO
            log.log(level, "request failed", extra=told)
