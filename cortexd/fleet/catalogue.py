"""What the fleet can serve: `models.toml` and the nodes' own models, against the devices. Pure."""

from cortex_core.ids import ModelId, NodeName
from cortex_core.neuron_api import (
    CHAT,
    Discovery,
    EmbeddingSizes,
    LoadRequest,
    ModelLimit,
    NodeModel,
)
from cortexd.config import AdmissionConfig, ModelConfig, ModelsConfig
from cortexd.fleet.decisions import Load
from cortexd.fleet.records import Node
from cortexd.fleet.state import FleetState

OVERHEAD = 1.1
"""Over the bytes of its weights a model takes buffers and activations; a first guess."""


class Catalogue:
    """Answers for each model: what was configured, what it needs, where it could run."""

    def __init__(self, models: ModelsConfig, admission: AdmissionConfig) -> None:
        self.aliases = models.aliases
        self.tiers = models.tiers.targets()
        self._entries = {ModelId(model.id): model for model in models.models}
        self._admission = admission

    def configured(self) -> tuple[ModelId, ...]:
        """Return the ids of `models.toml`, in its order."""
        return tuple(self._entries)

    def known(self, state: FleetState) -> tuple[ModelId, ...]:
        """Return every model that may be asked for: configured, or on a node."""
        found = dict.fromkeys(self._entries)
        for node in state.nodes.values():
            found.update(dict.fromkeys(node.models))
        return tuple(found)

    def entry(self, model_id: ModelId) -> ModelConfig:
        """Return the configuration of a model; that of an unconfigured one is all defaults."""
        return self._entries.get(model_id) or ModelConfig(id=model_id)

    def harness(self, state: FleetState, model_id: ModelId) -> str:
        """Return the engine that serves the model: as configured, else a node's own word."""
        if model_id in self._entries:
            return self._entries[model_id].harness
        for model in self._on_nodes(state, model_id):
            return model.harness
        return ModelConfig(id=model_id).harness

    def need_mb(self, state: FleetState, model_id: ModelId) -> int | None:
        """Return what the model takes: measured, else configured, else guessed from its files."""
        entry = self.entry(model_id)
        known = state.measured_mb.get(model_id) or entry.vram_mb
        if known is not None:
            return known
        for model in self._on_nodes(state, model_id):
            if model.size_mb is not None:
                return int(model.size_mb * OVERHEAD) + (entry.kv_cache_mb or 0)
        return None

    def limit(self, state: FleetState, model_id: ModelId) -> ModelLimit:
        """Return the token limits: each as configured, else as a node reports it."""
        given = self.entry(model_id).limit
        reported = next((m.limit for m in self._on_nodes(state, model_id)), ModelLimit())
        return ModelLimit(
            context=given.context or reported.context,
            input=given.input or reported.input,
            output=given.output or reported.output,
        )

    def capabilities(self, state: FleetState, model_id: ModelId) -> tuple[str, ...]:
        """Return what a node says that the model can do; with a template of ours also chat."""
        found = (m.capabilities for m in self._on_nodes(state, model_id) if m.capabilities)
        reported = tuple(next(found, ()))
        if self.entry(model_id).chat_template is None or CHAT in reported:
            return reported
        return (*reported, CHAT)

    def embedding(self, state: FleetState, model_id: ModelId) -> EmbeddingSizes | None:
        """Return the sizes of the model's vectors, as a node says that has it loaded."""
        found = (m.embedding for m in self._on_nodes(state, model_id) if m.embedding is not None)
        return next(found, None)

    def cannot_run(self, state: FleetState, model_id: ModelId, node: Node) -> str | None:
        """Return why the model can never run on the node, None if it could with all memory free.

        A node that was never reached gets the benefit of the doubt.
        """
        if node.discovery is None:
            return None
        entry = self.entry(model_id)
        lacking = _lacking(node.name, node.discovery, entry, self.harness(state, model_id))
        if lacking is not None:
            return lacking
        floor_mb = entry.min_device_vram_mb or 0
        large = [d for d in node.discovery.devices if d.vram_total_mb >= floor_mb]
        if len(large) < entry.min_devices:
            of_size = f" of {floor_mb} MB or more" if floor_mb else ""
            return f"{node.name} has {len(large)} of {entry.min_devices} devices{of_size}"
        share = -(-(self.need_mb(state, model_id) or 0) // entry.min_devices)
        enough = [d for d in large if d.vram_total_mb >= share]
        if len(enough) < entry.min_devices:
            largest = max(large, key=lambda d: d.vram_total_mb)
            return (
                f"it needs {share} MB on each of {entry.min_devices} device(s) and "
                f"{node.name}/{largest.id} has {largest.vram_total_mb} MB"
            )
        return None

    def feasible_on(self, state: FleetState, model_id: ModelId) -> tuple[NodeName, ...]:
        """Return the discovered nodes that could run the model, pinned ones first."""
        pinned = self.entry(model_id).pinned_on
        found = [
            node.name
            for node in state.nodes.values()
            if node.discovery and self.cannot_run(state, model_id, node) is None
        ]
        return tuple(sorted(found, key=lambda name: name not in pinned))

    def max_in_flight(self, model_id: ModelId) -> int:
        return self.entry(model_id).max_in_flight or self._admission.max_in_flight

    def max_queue_depth(self, model_id: ModelId) -> int:
        return self.entry(model_id).max_queue_depth or self._admission.max_queue_depth

    def max_wait_s(self, model_id: ModelId) -> float:
        return self.entry(model_id).max_wait_s or self._admission.max_wait_s

    def load_request(self, state: FleetState, model_id: ModelId, load: Load) -> LoadRequest:
        """Return what is asked of the node to carry out `load`."""
        entry = self.entry(model_id)
        return LoadRequest(
            model_id=model_id,
            harness=self.harness(state, model_id),
            quant=entry.quant,
            tensor_parallel=entry.min_devices,
            devices=list(load.devices),
            profile=entry.profile(),
            state_version=load.state_version,
        )

    def _on_nodes(self, state: FleetState, model_id: ModelId) -> list[NodeModel]:
        """Return the nodes' words on the model, those that have it ready first."""
        found = [n.models[model_id] for n in state.nodes.values() if model_id in n.models]
        return sorted(found, key=lambda model: model.status != "ready")


def _lacking(node: NodeName, can: Discovery, entry: ModelConfig, harness: str) -> str | None:
    """Return what the model's configuration asks for and no device of the node can do."""
    if harness not in can.harnesses:
        return f"{node} has no harness {harness!r}"
    if entry.quant is not None and entry.quant not in can.quants:
        return f"{node} does not convert weights to quant {entry.quant!r}; leave quant out"
    if entry.min_devices > can.max_tensor_parallel:
        most = can.max_tensor_parallel
        return f"{node} runs a model on {most} device(s), min_devices is {entry.min_devices}"
    return None
