"""What the fleet actor counts, and the text of :31314.

Counters live in the files of prometheus' multiprocess mode, beside those of the HTTP workers, so
they go on over a restart of the actor. Gauges are read off the state at each scrape.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from cortex_core.ids import ModelId, NodeName
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.records import Node
from cortexd.fleet.state import FleetState


class FleetMetrics:
    """The actor's counters. Made once per process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        where = ("model", "node")
        self._cold_starts = Counter(
            "cortex_cold_starts_total", "Loads that a request asked for", where, registry=registry
        )
        self._evictions = Counter(
            "cortex_evictions_total", "Unloads that made room", where, registry=registry
        )
        self._rejections = Counter(
            "cortex_model_rejections_total",
            "Requests that got no place",
            ("model", "code"),
            registry=registry,
        )

    def cold_start(self, model: ModelId, node: NodeName) -> None:
        self._cold_starts.labels(model, node).inc()

    def eviction(self, model: ModelId, node: NodeName) -> None:
        self._evictions.labels(model, node).inc()

    def rejection(self, model: ModelId, code: str) -> None:
        self._rejections.labels(model, code).inc()


class _Snapshot:
    """Gauges that were read already."""

    def __init__(self, gauges: Iterable[Metric]) -> None:
        self._gauges = list(gauges)

    def collect(self) -> Iterator[Metric]:
        return iter(self._gauges)


def render(metrics_dir: Path, gauges: Iterable[Metric]) -> bytes:
    """Return the text format over all processes' files and `gauges`. Reads files: use a thread."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(metrics_dir))  # type: ignore[no-untyped-call] # it has no types
    registry.register(_Snapshot(gauges))
    return generate_latest(registry)


def gauges_of(dispatcher: Dispatcher) -> list[Metric]:
    """Return how the fleet is now. On the actor's loop."""
    return [*_node_gauges(dispatcher.state), *_model_gauges(dispatcher)]


def _node_gauges(state: FleetState) -> list[Metric]:
    up = GaugeMetricFamily("cortex_node_up", "1 while the node answers", labels=("node",))
    device = ("node", "device")
    used = GaugeMetricFamily("cortex_device_vram_used_mb", "Memory in use", labels=device)
    free = GaugeMetricFamily("cortex_device_vram_free_mb", "Memory free", labels=device)
    load = GaugeMetricFamily("cortex_device_utilization_pct", "Utilization", labels=device)
    heat = GaugeMetricFamily("cortex_device_temp_c", "Temperature", labels=device)
    for node in state.nodes.values():
        up.add_metric((node.name,), float(node.healthy))
        _add_devices(node, used, free, load, heat)
    return [up, used, free, load, heat]


def _add_devices(
    node: Node,
    used: GaugeMetricFamily,
    free: GaugeMetricFamily,
    load: GaugeMetricFamily,
    heat: GaugeMetricFamily,
) -> None:
    for device in node.health.devices if node.health and node.healthy else ():
        labels = (node.name, device.id)
        used.add_metric(labels, device.vram_used_mb)
        free.add_metric(labels, device.vram_free_mb)
        if device.utilization_pct is not None:
            load.add_metric(labels, device.utilization_pct)
        if device.temp_c is not None:
            heat.add_metric(labels, device.temp_c)


def _model_gauges(dispatcher: Dispatcher) -> list[Metric]:
    where = ("model", "node")
    replicas = GaugeMetricFamily(
        "cortex_replica_info", "1 for each replica in its state", labels=(*where, "status")
    )
    in_flight = GaugeMetricFamily("cortex_model_in_flight", "Requests on a replica", labels=where)
    most = GaugeMetricFamily("cortex_model_max_in_flight", "Places on a replica", labels=where)
    depth = GaugeMetricFamily("cortex_model_queue_depth", "Requests that wait", labels=("model",))
    bound = GaugeMetricFamily("cortex_model_max_queue_depth", "May wait", labels=("model",))
    catalogue = dispatcher.catalogue
    for replica in dispatcher.state.replicas.values():
        labels = (replica.model.id, replica.node)
        replicas.add_metric((*labels, replica.model.status), 1)
        most.add_metric(labels, catalogue.max_in_flight(replica.model.id))
        if replica.column is not None:
            in_flight.add_metric(labels, dispatcher.in_flight(replica.column))
    for model in catalogue.known(dispatcher.state):
        depth.add_metric((model,), dispatcher.queues.depth(model))
        bound.add_metric((model,), catalogue.max_queue_depth(model))
    return [replicas, in_flight, most, depth, bound]
