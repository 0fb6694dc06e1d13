"""The gauges of the fleet, read off its state."""

from prometheus_client import CollectorRegistry

from cortex_core.errors import NodeUnavailable
from cortex_core.ids import NodeName
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.events import InFlightRead, NodeFailed
from cortexd.fleet.metrics import gauges_of
from tests.fakes.fleet_world import ask, dispatcher_of, node_model, polled


class Gauges:
    """Every gauge at one time."""

    def __init__(self, fleet: Dispatcher) -> None:
        self._registry = CollectorRegistry()
        self._fleet = fleet
        self._registry.register(self)

    def collect(self) -> object:
        return gauges_of(self._fleet)

    def of(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"cortex_{name}", labels)


def test_a_node_is_up_while_it_answers_and_its_devices_are_shown_so_long() -> None:
    fleet = dispatcher_of("n", "never")
    fleet.apply(polled("n", node_model("file:a", mb=4000)), 0.0)
    gauges = Gauges(fleet)
    assert gauges.of("node_up", node="n") == 1
    assert gauges.of("node_up", node="never") == 0
    assert gauges.of("device_vram_used_mb", node="n", device="cuda-0") == 4000
    assert gauges.of("device_vram_free_mb", node="n", device="cuda-0") == 6000

    for _ in range(3):
        fleet.apply(NodeFailed(NodeName("n"), NodeUnavailable("cannot reach n")), 1.0)

    assert gauges.of("node_up", node="n") == 0
    assert gauges.of("device_vram_used_mb", node="n", device="cuda-0") is None


def test_a_model_shows_its_places_and_who_waits() -> None:
    fleet = dispatcher_of("n", max_in_flight=7, max_queue_depth=9)
    fleet.apply(polled("n", node_model("file:a"), node_model("file:b", "unloaded")), 0.0)
    column = fleet.state.replicas[next(iter(fleet.state.replicas))].column
    assert column is not None
    fleet.count(InFlightRead({column: 7}, {column: 7}), 1.0)
    ask(fleet, "file:a", "one", 2.0)
    gauges = Gauges(fleet)
    where = {"model": "file:a", "node": "n"}
    assert gauges.of("replica_info", **where, status="ready") == 1
    assert gauges.of("model_in_flight", **where) == 7
    assert gauges.of("model_max_in_flight", **where) == 7
    assert gauges.of("model_queue_depth", model="file:a") == 1
    assert gauges.of("model_queue_depth", model="file:b") == 0
    assert gauges.of("model_max_queue_depth", model="file:a") == 9
