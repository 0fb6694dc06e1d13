"""The node's Prometheus metrics: what requests did, and how the devices are."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from types import TracebackType
from typing import Final, Self

from prometheus_client import (
    GC_COLLECTOR,
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cortex_core.errors import CortexError, InternalError
from cortex_core.ids import ModelId
from cortex_core.neuron_api import Health, NodeModel

TTFT_BUCKETS: Final = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
TOKEN_BUCKETS: Final = (
    0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
REQUEST_BUCKETS: Final = (
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0,
)  # fmt: skip


class GenerationMetrics:
    """Counters and histograms of requests, per model. One event loop is their only writer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "neuron_requests_total",
            "Requests that ended: completed, cancelled, or an error code",
            ["model", "outcome"],
            registry=registry,
        )
        self.ttft = Histogram(
            "neuron_time_to_first_token_seconds",
            "From the request to its first token",
            ["model"],
            buckets=TTFT_BUCKETS,
            registry=registry,
        )
        self.inter_token = TokenIntervals()
        registry.register(self.inter_token)
        self.duration = Histogram(
            "neuron_request_duration_seconds",
            "From the request to its end, whatever that was",
            ["model"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "neuron_prompt_tokens_total", "Tokens of prompts", ["model"], registry=registry
        )
        self.cached_tokens = Counter(
            "neuron_cached_prompt_tokens_total",
            "Tokens of prompts that were not computed for them",
            ["model"],
            registry=registry,
        )
        self.completion_tokens = Counter(
            "neuron_completion_tokens_total", "Tokens of answers", ["model"], registry=registry
        )

    def request(self, model: ModelId, clock: Callable[[], float]) -> "RequestMeter":
        """Return the meter of a request that begins now, on any clock that only goes forward."""
        return RequestMeter(self, model, clock)


class RequestMeter:
    """Measures one request, which is over at the end of a `with`.

    What is raised there has failed it, a `CortexError` by its code. What was neither completed nor
    has failed was cancelled.
    """

    def __init__(
        self, metrics: GenerationMetrics, model: ModelId, clock: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._model: str = model
        self._clock = clock
        self._began_s = self._last_s = clock()
        self._known = False
        self._outcome = "cancelled"
        self._inter_token: _Intervals | None = None

    def prompt(self, tokens: int) -> None:
        """The model is there and the prompt is counted. Before this the model's name is unproven,
        and a label must not be whatever a client writes."""
        self._known = True
        self._metrics.prompt_tokens.labels(self._model).inc(tokens)

    def cached(self, tokens: int) -> None:
        """So many more tokens of the prompt need not be computed."""
        self._metrics.cached_tokens.labels(self._model).inc(tokens)

    def token(self) -> None:
        """A token came: the first ends the time to first token, each other one an interval."""
        now = self._clock()
        if self._inter_token is None:
            self._metrics.ttft.labels(self._model).observe(now - self._began_s)
            self._inter_token = self._metrics.inter_token.of(self._model)
        else:
            self._inter_token.observe(now - self._last_s)
        self._last_s = now

    def completed(self, tokens: int) -> None:
        self._outcome = "completed"
        self._metrics.completion_tokens.labels(self._model).inc(tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            self._outcome = error.code if isinstance(error, CortexError) else InternalError.code
        model = self._model if self._known else "unknown"
        self._metrics.requests.labels(model, self._outcome).inc()
        if self._known:
            self._metrics.duration.labels(model).observe(self._clock() - self._began_s)


class _Intervals:
    """Counts of one model, by bucket; the last one is for what is longer than all."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(TOKEN_BUCKETS) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(TOKEN_BUCKETS, seconds)] += 1
        self.sum_s += seconds


class TokenIntervals(Collector):
    """The one histogram that every token adds to, which must cost next to nothing.

    The library's takes two locks and searches its buckets one by one.
    """

    def __init__(self) -> None:
        self._models: dict[str, _Intervals] = {}

    def of(self, model: str) -> _Intervals:
        """Return the counts of a model, which are kept from the first call on."""
        return self._models.setdefault(model, _Intervals())

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(
            "neuron_inter_token_latency_seconds",
            "Between two tokens of a request",
            labels=["model"],
        )
        for model, found in self._models.items():
            names = [*map(str, TOKEN_BUCKETS), "+Inf"]
            buckets = list(zip(names, accumulate(found.counts), strict=True))
            family.add_metric([model], buckets, found.sum_s)
        yield family


class NodeCollector(Collector):
    """Gauges of devices and models, read from the supervisor when somebody scrapes."""

    def __init__(
        self, health: Callable[[], Health], models: Callable[[], Iterable[NodeModel]]
    ) -> None:
        self._health = health
        self._models = models

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: registering must not measure devices."""
        return []

    def collect(self) -> Iterable[Metric]:
        yield from _device_metrics(self._health())
        yield from _model_metrics(list(self._models()))


def _device_metrics(health: Health) -> Iterable[Metric]:
    used = GaugeMetricFamily("neuron_device_vram_used_mb", "MiB in use", labels=["device"])
    free = GaugeMetricFamily("neuron_device_vram_free_mb", "MiB free", labels=["device"])
    busy = GaugeMetricFamily("neuron_device_utilization_pct", "Per cent busy", labels=["device"])
    warm = GaugeMetricFamily("neuron_device_temp_c", "Degrees Celsius", labels=["device"])
    up = GaugeMetricFamily("neuron_device_up", "1 while its actor is ready", labels=["device"])
    restarts = CounterMetricFamily(
        "neuron_device_restarts", "Times the device's actor was respawned", labels=["device"]
    )
    for device in health.devices:
        label = [device.id]
        used.add_metric(label, device.vram_used_mb)
        free.add_metric(label, device.vram_free_mb)
        up.add_metric(label, device.state in {"ready", "draining"})
        restarts.add_metric(label, device.restarts)
        if device.utilization_pct is not None:
            busy.add_metric(label, device.utilization_pct)
        if device.temp_c is not None:
            warm.add_metric(label, device.temp_c)
    uptime = GaugeMetricFamily("neuron_uptime_seconds", "Since the node's start")
    uptime.add_metric([], health.uptime_secs)
    return [used, free, busy, warm, up, restarts, uptime]


def _model_metrics(models: list[NodeModel]) -> Iterable[Metric]:
    running = GaugeMetricFamily("neuron_requests_running", "Requests in a batch", labels=["model"])
    waiting = GaugeMetricFamily("neuron_requests_waiting", "Requests in line", labels=["model"])
    memory = GaugeMetricFamily("neuron_model_vram_used_mb", "MiB it holds", labels=["model"])
    ready = GaugeMetricFamily("neuron_model_ready", "1 while it can generate", labels=["model"])
    blocks = GaugeMetricFamily("neuron_kv_blocks", "Blocks of the K/V cache", labels=["model"])
    used = GaugeMetricFamily("neuron_kv_blocks_used", "Of running sequences", labels=["model"])
    cached = GaugeMetricFamily(
        "neuron_kv_blocks_cached", "Not in use, kept for prompts to come", labels=["model"]
    )
    preempted = CounterMetricFamily(
        "neuron_preemptions", "Times a sequence lost its blocks to another", labels=["model"]
    )
    drafted = CounterMetricFamily(
        "neuron_draft_tokens", "Tokens that speculation drafted", labels=["model"]
    )
    accepted = CounterMetricFamily(
        "neuron_accepted_draft_tokens", "Of these, the chosen ones: steps saved", labels=["model"]
    )
    for model in models:
        if model.drafts is not None:
            drafted.add_metric([model.id], model.drafts.drafted)
            accepted.add_metric([model.id], model.drafts.accepted)
        if model.kv is not None:
            blocks.add_metric([model.id], model.kv.blocks)
            used.add_metric([model.id], model.kv.used)
            cached.add_metric([model.id], model.kv.cached)
            preempted.add_metric([model.id], model.kv.preemptions)
        running.add_metric([model.id], model.running)
        waiting.add_metric([model.id], model.waiting)
        memory.add_metric([model.id], model.vram_used_mb)
        ready.add_metric([model.id], model.status == "ready")
    of_cache = [blocks, used, cached, preempted]
    return [running, waiting, memory, ready, *of_cache, drafted, accepted]


def make_registry() -> CollectorRegistry:
    """Return a registry with the metrics of the process and its interpreter."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(GC_COLLECTOR)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the registry in Prometheus' text format."""
    return generate_latest(registry)
