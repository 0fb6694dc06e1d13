"""The dispatcher against a small world of nodes, in any order of events.

The world keeps the truth: memory, what runs where, who was answered. It carries loads out when
hypothesis says so, lets nodes die and come back, and checks after each step that nothing busy or
pinned was evicted, nobody was answered twice, no queue is over its bound, and no load was begun
that nobody waits for. At the end everything is released, and everybody must have been answered.
"""

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from cortex_core.errors import Conflict, CortexError, ModelLoadFailed, NodeUnavailable, OutOfMemory
from cortex_core.ids import ModelId, NodeName, RequestId
from cortex_core.neuron_api import NodeModel
from cortexd.config import ModelConfig
from cortexd.fleet.effects import Effect, PollNow, StartLoad, StartUnload, Tell
from cortexd.fleet.events import (
    InFlightRead,
    LoadDone,
    LoadFailed,
    NodeFailed,
    Unloaded,
)
from cortexd.fleet.holds import HOLD_S
from cortexd.fleet.protocol import Granted, Rejected, ReplicaView
from cortexd.fleet.queues import Ticket
from cortexd.fleet.records import replica_id
from tests.fakes.fleet_world import WORKER, ask, dispatcher_of, node_model, polled

MODELS = {"file:a": 5000, "file:b": 6000, "file:c": 8000, "file:pinned": 3000}
NODES = ("n", "m")
VRAM_MB = 8000
BOUND = 4
MAX_IN_FLIGHT = 2


class FleetMachine(RuleBasedStateMachine):
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.memory: dict[tuple[str, str], int] = {}
        self.version = dict.fromkeys(NODES, 1)
        self.alive = dict.fromkeys(NODES, True)
        self.columns: dict[int, int] = {}
        self.started: dict[int, int] = {}
        self.asked: dict[str, str] = {}
        self.granted: dict[str, ReplicaView] = {}
        self.granted_at: dict[str, float] = {}
        self.running: dict[str, ReplicaView] = {}
        self.ended: set[str] = set()
        self.open_loads: dict[str, StartLoad] = {}
        self.to_poll: set[str] = set()

    @initialize(
        strategy=st.sampled_from(["lru", "priority"]), collate_s=st.sampled_from([0.0, 9.0])
    )
    def begin(self, strategy: str, collate_s: float) -> None:
        self.fleet = dispatcher_of(
            *NODES,
            models=(
                ModelConfig(id="file:a", residency_priority=50),
                ModelConfig(id="file:b"),
                ModelConfig(id="file:c", max_replicas=2),
                ModelConfig(id="file:pinned", pinned_on=(NodeName("n"),)),
            ),
            strategy=strategy,
            collate_s=collate_s,
            max_in_flight=MAX_IN_FLIGHT,
            max_queue_depth=BOUND,
            max_wait_s=60.0,
        )
        for node in NODES:
            self.poll(node)

    @rule(target=requests, model=st.sampled_from(sorted(MODELS)), priority=st.integers(0, 2))
    def acquire(self, model: str, priority: int) -> str:
        name = f"r{len(self.asked)}"
        self.asked[name] = model
        self.do(ask(self.fleet, model, name, self.now, priority=priority))
        return name

    @rule(request=requests)
    def ask_again(self, request: str) -> None:
        if request not in self.ended and request not in self.running:
            self.granted.pop(request, None)
            self.do(ask(self.fleet, self.asked[request], request, self.now))

    @rule(request=consumes(requests))
    def cancel(self, request: str) -> None:
        if request not in self.running:
            self.granted.pop(request, None)
            self.ended.add(request)
            self.do(self.fleet.cancel(Ticket(WORKER, RequestId(request)), self.now))

    @rule()
    def take_granted(self) -> None:
        for name, replica in list(self.granted.items()):
            del self.granted[name]
            self.running[name] = replica
            self.ended.add(name)
            self.columns[replica.column] = self.columns.get(replica.column, 0) + 1
            self.started[replica.column] = self.started.get(replica.column, 0) + 1
            self.look()
            self.do(self.fleet.taken(Ticket(WORKER, RequestId(name)), self.now))

    @rule(data=st.data())
    def release_one(self, data: st.DataObject) -> None:
        if self.running:
            self.release(data.draw(st.sampled_from(sorted(self.running))))

    @rule(data=st.data())
    def node_has_no_room(self, data: st.DataObject) -> None:
        if self.running:
            name = data.draw(st.sampled_from(sorted(self.running)))
            replica = self.running[name]
            self.release(name)
            self.do(self.fleet.report_full(replica.id, 2.0, self.now))

    @rule()
    def everything_ends(self) -> None:
        for name in sorted(self.running):
            self.release(name)
        self.time_passes(1.0)

    @rule(seconds=st.sampled_from([0.25, 1.0, 15.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.look()
        self.do(self.fleet.tick(self.now))

    @rule(data=st.data(), outcome=st.sampled_from(["done", "done", "conflict", "oom", "corrupt"]))
    def end_load(self, data: st.DataObject, outcome: str) -> None:
        if self.open_loads:
            self.finish(data.draw(st.sampled_from(sorted(self.open_loads))), outcome)

    @precondition(lambda self: self.now > 60.0)
    @rule(node=st.sampled_from(NODES))
    def node_dies(self, node: str) -> None:
        self.alive[node] = False
        for key in [key for key in self.memory if key[0] == node]:
            del self.memory[key]
        for name in [name for name, replica in self.running.items() if replica.node == node]:
            self.do(self.fleet.report_failure(self.running[name].id, self.now))
            self.release(name)

    @rule(node=st.sampled_from(NODES))
    def node_comes_back(self, node: str) -> None:
        if not self.alive[node]:
            self.alive[node] = True
            self.version[node] += 1

    @rule(model=st.sampled_from(sorted(MODELS)), count=st.integers(1, 3))
    def run_some(self, model: str, count: int) -> None:
        for _ in range(count):
            self.acquire(model, 0)
        for loading in list(self.open_loads):
            self.finish(loading, "done")
        self.polls_arrive()
        self.take_granted()

    @rule()
    def polls_arrive(self) -> None:
        for node in NODES:
            self.poll(node)

    @invariant()
    def queues_are_bounded(self) -> None:
        if hasattr(self, "fleet"):
            for model in MODELS:
                assert self.fleet.queues.depth(ModelId(model)) <= BOUND

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for node in NODES:
            self.node_comes_back(node)
        for _ in range(200):
            if self.ended.issuperset(self.asked):
                break
            self.take_granted()
            for name in list(self.running):
                self.release(name)
            for model in list(self.open_loads):
                self.finish(model, "done")
            self.polls_arrive()
            self.time_passes(1.0)
        waiting = [name for name in self.asked if name not in self.ended]
        assert waiting == [], "every request is answered in the end"

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(message=Granted() as granted):
                    self.on_granted(granted)
                case Tell(message=Rejected() as rejected):
                    assert rejected.request_id not in self.ended, "answered twice"
                    self.ended.add(rejected.request_id)
                case StartLoad():
                    self.on_start_load(effect)
                case StartUnload():
                    raise AssertionError("nothing has a ttl here")
                case PollNow():
                    self.to_poll.add(effect.node)
                case _:
                    pass

    def on_granted(self, granted: Granted) -> None:
        name, column = granted.request_id, granted.replica.column
        assert name not in self.ended, "answered twice"
        assert name not in self.granted, "answered twice"
        self.granted[name] = granted.replica
        self.granted_at[name] = self.now
        taken = sum(replica.column == column for replica in self.running.values())
        held = sum(
            replica.column == column and self.now < self.granted_at[other] + HOLD_S
            for other, replica in self.granted.items()
        )
        assert taken + held <= MAX_IN_FLIGHT

    def on_start_load(self, order: StartLoad) -> None:
        model, node = order.model_id, order.load.node
        assert model not in self.open_loads, "one load per model"
        assert self.fleet.queues.depth(model) > 0, "somebody waits for it"
        for victim in order.load.evict:
            victim_node, _, victim_model = victim.partition("/")
            assert (victim_node, victim_model) != ("n", "file:pinned")
            assert victim_node == node
            busy = [r for r in (*self.running.values(),) if r.id == victim]
            assert busy == [], "busy replicas stay"
        self.open_loads[model] = order

    def finish(self, model: str, outcome: str) -> None:
        order = self.open_loads.pop(model)
        node = order.load.node
        try:
            self.carry_out(order, outcome)
        except CortexError as ex:
            self.do(self.fleet.apply(LoadFailed(ModelId(model), NodeName(node), ex), self.now))
            return
        self.version[node] += 1
        done = LoadDone(
            ModelId(model), NodeName(node), self.listed(node, model), self.version[node]
        )
        self.do(self.fleet.apply(done, self.now))

    def carry_out(self, order: StartLoad, outcome: str) -> None:
        node, version = order.load.node, order.load.state_version
        if not self.alive[node]:
            raise NodeUnavailable("it is dead")
        for victim in order.load.evict:
            if any(r.id == victim for r in (*self.running.values(), *self.granted.values())):
                raise Conflict("a request went there meanwhile")
            version = self.evict(victim.partition("/")[2], node, version)
        if version != self.version[node] or outcome == "conflict":
            raise Conflict("stale")
        if outcome == "corrupt":
            raise ModelLoadFailed("corrupt")
        free = VRAM_MB - sum(mb for (where, _), mb in self.memory.items() if where == node)
        if free < MODELS[order.model_id] or outcome == "oom":
            raise OutOfMemory("too little")
        self.memory[node, order.model_id] = MODELS[order.model_id]

    def evict(self, model: str, node: str, version: int) -> int:
        if version != self.version[node] or (node, model) not in self.memory:
            raise Conflict("stale")
        del self.memory[node, model]
        self.version[node] += 1
        unloaded = Unloaded(replica_id(NodeName(node), ModelId(model)), self.version[node])
        self.do(self.fleet.apply(unloaded, self.now))
        return self.version[node]

    def listed(self, node: str, model: str) -> NodeModel:
        return node_model(
            model, "ready" if (node, model) in self.memory else "unloaded", mb=MODELS[model]
        )

    def release(self, name: str) -> None:
        replica = self.running.pop(name)
        self.columns[replica.column] -= 1
        self.look()

    def look(self) -> None:
        self.fleet.count(InFlightRead(dict(self.columns), dict(self.started)), self.now)

    def poll(self, node: str) -> None:
        self.to_poll.discard(node)
        if not self.alive[node]:
            failed = NodeFailed(NodeName(node), NodeUnavailable("it is dead"))
            self.do(self.fleet.apply(failed, self.now))
            return
        models = [self.listed(node, model) for model in MODELS]
        event = polled(
            node,
            *models,
            vram_mb=VRAM_MB,
            version=self.version[node],
            at=self.now,
        )
        self.do(self.fleet.apply(event, self.now))


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    # To explain a failure takes longer than a test may.
    phases=set(Phase) - {Phase.explain},
)
