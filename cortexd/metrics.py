"""What an HTTP worker counts. One instance per process; under gunicorn in multiprocess mode."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

LABELS: Final = ("model", "node")
UNKNOWN: Final = "unknown"
"""Model of requests that were refused before it was found; a label is never a client's text."""

DURATION_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
TTFT_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
RATE_BUCKETS: Final = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)


class RequestMetrics:
    """The children of every metric for one model on one node; made once, kept for good."""

    def __init__(self, owner: "GatewayMetrics", model: str, node: str) -> None:
        self.requests = owner.requests.labels(model, node)
        self.cancelled = owner.cancelled.labels(model, node)
        self.continued = owner.continued.labels(model, node)
        self.duration_s = owner.duration_s.labels(model, node)
        self.ttft_s = owner.ttft_s.labels(model, node)
        self.tokens_per_s = owner.tokens_per_s.labels(model, node)
        self.prompt_tokens = owner.prompt_tokens.labels(model, node)
        self.cached_tokens = owner.cached_tokens.labels(model, node)
        self.completion_tokens = owner.completion_tokens.labels(model, node)


class GatewayMetrics:
    """Metrics of the request path. `node` is empty where a request never reached one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = LABELS) -> Counter:
            return Counter(f"cortex_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"cortex_{name}", text, LABELS, buckets=buckets, registry=registry)

        self.requests = counter("requests_total", "Requests, however they ended")
        self.errors = counter(
            "request_errors_total", "Requests that ended with an error", (*LABELS, "code")
        )
        self.cancelled = counter("requests_cancelled_total", "Requests whose client went away")
        self.continued = counter(
            "streams_continued_total", "Streams that went on on another replica"
        )
        self.duration_s = histogram(
            "request_duration_seconds", "From request to last byte", DURATION_BUCKETS_S
        )
        self.ttft_s = histogram(
            "time_to_first_token_seconds", "From request to the first token", TTFT_BUCKETS_S
        )
        self.tokens_per_s = histogram(
            "tokens_per_second", "Tokens after the first, per second", RATE_BUCKETS
        )
        self.prompt_tokens = counter("prompt_tokens_total", "Tokens of prompts, cached ones too")
        self.cached_tokens = counter("cached_prompt_tokens_total", "Prompt tokens not computed")
        self.completion_tokens = counter("completion_tokens_total", "Tokens of output")
        self._children: dict[tuple[str, str], RequestMetrics] = {}

    def of(self, model: str, node: str) -> RequestMetrics:
        """Return the metrics of a model on a node. Both names come from the fleet, not clients."""
        child = self._children.get((model, node))
        if child is None:
            child = self._children[model, node] = RequestMetrics(self, model, node)
        return child

    def count_refused(self, code: str) -> None:
        """Count a request that was refused before its model was found."""
        self.requests.labels(UNKNOWN, "").inc()
        self.count_error(UNKNOWN, "", code)

    def count_error(self, model: str, node: str, code: str) -> None:
        """Count a request that ended with an error."""
        self.errors.labels(model, node, code).inc()
