"""Where a model could be loaded, by measured memory. Pure; answers the router's questions.

Among nodes: pinned ones first, then those the request did not fail on, then those that have the
files. Among devices with room: the tightest fit, so that large devices stay free for what needs
them; the emptiest where the model's size is not known. Nothing is decided on a node whose state
is in doubt, and memory that a load under way is still going to take counts as taken.
"""

from collections.abc import Callable, Iterator

from cortex_core.ids import DeviceName, ReplicaId
from cortexd.config import ModelConfig
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.decisions import Load, Reject, RouteRequest, Wait
from cortexd.fleet.eviction import Candidate, EvictionPolicy
from cortexd.fleet.records import ON_THE_WAY, PRESENT, Node, Replica, replica_id
from cortexd.fleet.refusals import Refusals
from cortexd.fleet.setbacks import Setbacks
from cortexd.fleet.state import FleetState

IDLE_STATES = frozenset({"ready", "asleep"})

Busy = Callable[[Replica], bool]
"""Says whether requests are in flight on a replica, or about to be."""


class Placement:
    """The planner over one state at one time; made anew for each round of decisions."""

    def __init__(
        self,
        state: FleetState,
        catalogue: Catalogue,
        policy: EvictionPolicy,
        setbacks: Setbacks,
        *,
        busy: Busy,
        node_grace_s: float,
        now: float,
    ) -> None:
        self._state = state
        self._catalogue = catalogue
        self._policy = policy
        self._setbacks = setbacks
        self._busy = busy
        self._grace_s = node_grace_s
        self._now = now

    def loading(self, request: RouteRequest) -> Wait | None:
        """Return a wait if the model is on its way already, whoever asked for it."""
        if request.model_id in self._state.loads:
            return Wait()
        for replica in self._replicas(request):
            if replica.model.status in ON_THE_WAY:
                return Wait()
        return None

    def wake(self, request: RouteRequest) -> Load | None:
        """Return the load that wakes a sleeping replica, if its memory has room again."""
        for replica in self._replicas(request):
            node = self._state.nodes[replica.node]
            if replica.model.status == "asleep" and node in self._nodes(request):
                devices = self._roomy(node, request)
                if devices is not None:
                    return self._load(node, devices, (), request)
        return None

    def has_replica(self, request: RouteRequest) -> bool:
        """Say whether a replica is ready that stays, or only gives way for the time being."""
        return any(
            replica.model.status == "ready" and replica.model.servable.ok and not replica.leaving
            for replica in self._replicas(request)
        )

    def may_grow(self, request: RouteRequest) -> bool:
        """Say whether one more replica of the model is allowed."""
        there = sum(r.model.status in PRESENT for r in self._state.replicas_of(request.model_id))
        return there < self._catalogue.entry(request.model_id).max_replicas

    def into_free(self, request: RouteRequest) -> Load | None:
        """Return a load that evicts nothing."""
        fits: list[tuple[tuple[bool, ...], int, Node, tuple[DeviceName, ...]]] = []
        for node in self._open_nodes(request):
            if self._setbacks.too_large(request.model_id, node.name, self._now) is not None:
                continue
            devices = self._roomy(node, request)
            if devices is not None:
                free = min(self._state.unreserved_mb(node, device) for device in devices)
                waste = free if self._need_mb(request) else -free
                fits.append((self._rank(node, request), waste, node, devices))
        if not fits:
            return None
        _, _, node, devices = min(fits, key=lambda fit: fit[:2])
        return self._load(node, devices, (), request)

    def with_eviction(self, request: RouteRequest) -> Load | None:
        """Return the load whose victims cost least."""
        best: tuple[tuple[object, ...], Load] | None = None
        for node in self._open_nodes(request):
            idle = [r for r in self._displaceable(node, request) if self.is_idle(r)]
            for devices, victims in self._plans(node, request, idle):
                costs = sorted((self._policy.cost(victim) for victim in victims), reverse=True)
                key = (self._rank(node, request), costs)
                if best is None or key < best[0]:
                    load = self._load(node, devices, tuple(v.id for v in victims), request)
                    best = (key, load)
        return best[1] if best else None

    def may_go(self, replica: Replica) -> bool:
        """Say whether a replica is idle, not pinned, and not one of its `min_replicas`."""
        entry = self._catalogue.entry(replica.model.id)
        kept = replica.node in entry.pinned_on or not self._spare(replica, entry)
        return self._state.nodes[replica.node].usable and not kept and self.is_idle(replica)

    def is_idle(self, replica: Replica) -> bool:
        """Say whether nobody uses the replica and it is not on its way out."""
        return not (replica.leaving or self._busy(replica))

    def obstacle(self, request: RouteRequest) -> Wait | Reject:
        """Say why nothing is possible, and whether to wait for it."""
        blocked = self._blocked_by(request)
        if blocked is not None:
            return Wait(blocked)
        nodes = [
            node
            for node in self._wanted_nodes(request)
            if self._catalogue.cannot_run(self._state, request.model_id, node) is None
        ]
        if any(self._in_flux(node) or self._in_grace(node) for node in nodes):
            return Wait()
        refusals = Refusals(self._state, self._catalogue, self._setbacks, now=self._now)
        return Reject(refusals.error(request, nodes))

    def _replicas(self, request: RouteRequest) -> Iterator[Replica]:
        for replica in self._state.replicas_of(request.model_id):
            if (
                request.only_node in (None, replica.node)
                and not self._state.nodes[replica.node].cordoned
            ):
                yield replica

    def _wanted_nodes(self, request: RouteRequest) -> list[Node]:
        return [n for n in self._state.nodes.values() if request.only_node in (None, n.name)]

    def _nodes(self, request: RouteRequest) -> list[Node]:
        """Return the nodes that can be decided on and could run the model."""
        return [
            node
            for node in self._wanted_nodes(request)
            if node.usable
            and self._catalogue.cannot_run(self._state, request.model_id, node) is None
            and self._setbacks.on(request.model_id, node.name, self._now) is None
        ]

    def _open_nodes(self, request: RouteRequest) -> Iterator[Node]:
        """Yield the nodes of `_nodes` on which the model is not present in any form."""
        for node in self._nodes(request):
            there = self._state.replicas.get(replica_id(node.name, request.model_id))
            if there is None or there.model.status not in PRESENT:
                yield node

    def _rank(self, node: Node, request: RouteRequest) -> tuple[bool, ...]:
        pinned = self._catalogue.entry(request.model_id).pinned_on
        return (
            node.name not in pinned,
            replica_id(node.name, request.model_id) in request.failed_on,
            request.model_id not in node.models,
        )

    def _need_mb(self, request: RouteRequest) -> int:
        return self._catalogue.need_mb(self._state, request.model_id) or 0

    def _share_mb(self, request: RouteRequest) -> int:
        return -(-self._need_mb(request) // self._entry(request).min_devices)

    def _entry(self, request: RouteRequest) -> ModelConfig:
        return self._catalogue.entry(request.model_id)

    def _eligible(self, node: Node, request: RouteRequest) -> list[DeviceName]:
        floor_mb = self._entry(request).min_device_vram_mb or 0
        return [device.id for device in node.devices() if device.vram_total_mb >= floor_mb]

    def _roomy(self, node: Node, request: RouteRequest) -> tuple[DeviceName, ...] | None:
        """Return devices of the node with enough free memory."""
        share = self._share_mb(request)
        free = {d: self._state.unreserved_mb(node, d) for d in self._eligible(node, request)}
        enough = [device for device in free if free[device] >= share]
        enough.sort(key=lambda device: free[device] if share else -free[device])
        count = self._entry(request).min_devices
        return tuple(enough[:count]) if len(enough) >= count else None

    def _displaceable(self, node: Node, request: RouteRequest) -> list[Replica]:
        """Return the replicas that the request's model may displace, busy ones too."""
        own = self._entry(request).residency
        found = []
        for replica in self._state.on_node(node.name):
            entry = self._catalogue.entry(replica.model.id)
            if (
                replica.model.id != request.model_id
                and replica.model.status in IDLE_STATES
                and node.name not in entry.pinned_on
                and self._spare(replica, entry)
                and self._policy.may_displace(victim=entry.residency, own=own)
            ):
                found.append(replica)
        return found

    def _spare(self, replica: Replica, entry: ModelConfig) -> bool:
        there = [
            other
            for other in self._state.replicas_of(replica.model.id)
            if other.model.status in IDLE_STATES and not other.leaving
        ]
        return len(there) > entry.min_replicas

    def _plans(
        self, node: Node, request: RouteRequest, replicas: list[Replica]
    ) -> Iterator[tuple[tuple[DeviceName, ...], tuple[Candidate, ...]]]:
        """Yield choices of devices with the replicas that must go for each."""
        candidates = [self._candidate(replica) for replica in replicas]
        count = self._entry(request).min_devices
        potential = {
            device: self._state.unreserved_mb(node, device)
            + sum(candidate.held_mb.get(device, 0) for candidate in candidates)
            for device in self._eligible(node, request)
        }
        by_room = sorted(potential, key=lambda device: -potential[device])
        choices: list[tuple[DeviceName, ...]] = [tuple(by_room[:count])]
        if count == 1:
            choices = [(device,) for device in by_room]
        elif len(by_room) < count:
            choices = []
        for devices in choices:
            victims = self._victims(node, request, devices, candidates)
            if victims:
                yield devices, victims

    def _victims(
        self,
        node: Node,
        request: RouteRequest,
        devices: tuple[DeviceName, ...],
        candidates: list[Candidate],
    ) -> tuple[Candidate, ...] | None:
        if self._setbacks.too_large(request.model_id, node.name, self._now) is not None:
            # The estimate was wrong once; everything that may go gives it the best chance.
            return tuple(c for c in candidates if any(d in c.held_mb for d in devices))
        share = self._share_mb(request)
        lacking = {d: share - self._state.unreserved_mb(node, d) for d in devices}
        return self._policy.victims(candidates, lacking_mb=lacking)

    def _candidate(self, replica: Replica) -> Candidate:
        model = replica.model
        share = model.vram_used_mb // max(1, len(model.devices))
        return Candidate(
            id=replica.id,
            residency=self._catalogue.entry(model.id).residency,
            last_used_at=replica.last_used_at,
            held_mb=dict.fromkeys(model.devices, share),
        )

    def _blocked_by(self, request: RouteRequest) -> tuple[ReplicaId, ...] | None:
        """Return the busy replicas that would have to go, for the node where that is cheapest."""
        found: list[tuple[int, tuple[ReplicaId, ...]]] = []
        for node in self._open_nodes(request):
            there = self._displaceable(node, request)
            idle = {replica.id for replica in there if self.is_idle(replica)}
            for _, victims in self._plans(node, request, there):
                busy = tuple(victim.id for victim in victims if victim.id not in idle)
                if busy:
                    found.append((len(busy), busy))
        return min(found)[1] if found else None

    def _in_flux(self, node: Node) -> bool:
        """Say whether the next news of the node may change the answer."""
        restarting = node.draining and not node.cordoned
        if node.healthy and (node.in_doubt or restarting):
            return True
        leaving = any(
            replica.leaving or replica.model.status in ("draining", "unloading")
            for replica in self._state.on_node(node.name)
        )
        return node.usable and (leaving or self._state.is_settling(node.name))

    def _in_grace(self, node: Node) -> bool:
        return node.down_since is not None and self._now - node.down_since < self._grace_s

    def _load(
        self,
        node: Node,
        devices: tuple[DeviceName, ...],
        evict: tuple[ReplicaId, ...],
        request: RouteRequest,
    ) -> Load:
        return Load(node.name, devices, evict, self._need_mb(request), node.state_version)
