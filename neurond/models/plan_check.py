"""The proof that a plan is its model: both compute the same, in float32, or the plan is refused.

The model's own forward method runs a few random tokens with its layers replaced: each layer that is
checked gets random hidden states, and its result is held against the plan's; the rest let theirs
pass. What comes out at the end is held against embedding and head of the plan. So whatever stands
between the modules takes part: multipliers, the order of norms, parallel branches.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from neurond.attention.base import AttentionBatch, AttentionParams
from neurond.attention.reference import ReferenceBackend
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import LayerShape
from neurond.models.decoder_plan import DecoderPlan, NoPlan, PlanLayer, PlanLinear
from neurond.models.file_matrix import read_rows
from neurond.models.plan_reader import read_plan
from neurond.models.plan_reference import embed, run_head, run_layer

TOLERANCE: Final = 1e-4
"""Of the largest value."""
VOCABULARY: Final = 1024
"""So many of the first tokens take part; the whole head in float32 may not fit."""
POSITIONS: Final = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 1_000, 10_000, 100_000)
SEED: Final = 20240229


def plan_decoder(model: PreTrainedModel) -> DecoderPlan | NoPlan:
    """Return a plan that is proven to be `model`, or why there is none."""
    plan = read_plan(model)
    if isinstance(plan, NoPlan):
        return plan
    reason = verify_plan(model, plan)
    return plan if reason is None else NoPlan(reason)


def verify_plan(model: PreTrainedModel, plan: DecoderPlan) -> str | None:
    """Return None if `plan` computes what `model` does, else where it does not.

    The first and the last layer of each kind are computed, one in memory at a time.
    """
    probe = _Probe(plan, torch.tensor([p for p in POSITIONS if p < plan.ropes[0].num_positions]))
    try:
        with torch.inference_mode():
            probe.run(model)
    except Exception as ex:  # noqa: BLE001 -- a layer that cannot be called so is not the plan's
        return f"its layers cannot be checked: {ex}"
    return probe.difference


@dataclass(slots=True)
class _Probe:
    """One check of a model."""

    plan: DecoderPlan
    positions: torch.Tensor
    difference: str | None = None

    def run(self, model: PreTrainedModel) -> None:
        """Run the model's own forward method around replaced layers."""
        random = torch.Generator().manual_seed(SEED)
        size = min(VOCABULARY, self.plan.vocab_size, len(self.plan.embedding))
        ids = torch.randint(size, (len(self.positions),), generator=random)
        shared = (*model.parameters(), model.config, model.generation_config)
        memo: dict[int, Any] = {id(whole): whole for whole in shared}
        self._take_outside(model, memo, size)
        embedded: list[torch.Tensor] = []
        for layer in model.get_decoder().layers:
            memo[id(layer)] = _Passing(embedded.append)
        for index in _checked(model, self.plan):
            layer = model.get_decoder().layers[index]
            hidden = torch.randn(1, len(ids), self.plan.hidden, generator=random)
            memo[id(layer)] = _Checked(self, index, layer, hidden, embedded.append)
        twin = copy.deepcopy(model, memo)
        embedding: Any = twin.get_input_embeddings()
        embedding.padding_idx = None  # it may be beyond the tokens that are left
        logits = twin(
            input_ids=ids[None],
            position_ids=self.positions[None],
            use_cache=False,
            logits_to_keep=0,
            paged=_OneSequence(),
        ).logits
        small = replace(self.plan, head=_cut(self.plan.head, size))
        expected = embed(self.plan, ids)
        self.compare("the embedding", embedded[0][0], expected)
        self.compare("the head", logits[0], run_head(small, expected))

    def _take_outside(self, model: PreTrainedModel, memo: dict[int, Any], size: int) -> None:
        """Let the copy have what is outside of layers in float32, and `size` tokens of it."""
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        inside = {id(p) for p in model.get_decoder().layers.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in inside and parameter.ndim == 1:
                memo[id(parameter)] = _float(parameter)
        for parameter in (*embedding.parameters(), *head.parameters()):
            memo[id(parameter)] = _first_rows(parameter, size)
        for buffer in embedding.buffers():  # a scale, rounded to the type of the weights in use
            memo[id(buffer)] = buffer.to(self.plan.embedding.dtype).float()

    def compare(self, what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Note the first difference."""
        if self.difference is not None:
            return
        if found.shape != expected.shape:
            self.difference = f"{what} has the shape {tuple(found.shape)}"
            return
        error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
        if not error <= TOLERANCE:
            self.difference = f"{what} computes something else: it differs by {error:.1e}"


class _Passing(nn.Module):
    """Stands for a layer that is not checked."""

    def __init__(self, saw: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self._saw = saw

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._saw(hidden_states)
        return hidden_states


class _Checked(_Passing):
    """Stands for a layer, and holds it against the plan on hidden states of its own."""

    def __init__(
        self,
        probe: _Probe,
        index: int,
        layer: nn.Module,
        hidden: torch.Tensor,
        saw: Callable[[torch.Tensor], None],
    ) -> None:
        super().__init__(saw)
        self._probe = probe
        self._index = index
        self._layer = [layer]  # in a list it is no submodule
        self._hidden = hidden

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compare what the layer adds to the residual, and let `hidden_states` pass."""
        plan, probe = self._probe.plan, self._probe
        layer = _float_copy(self._layer[0])
        found = layer(self._hidden.clone(), *args, **kwargs)
        expected = run_layer(plan, plan.layers[self._index], self._hidden[0], probe.positions)
        added = [out - self._hidden[0] for out in (found[0], expected)]
        probe.compare(f"layer {self._index}", *added)
        return super().forward(hidden_states)


class _OneSequence:
    """A step of one sequence, whose K/V are kept for one layer at a time."""

    def attend(
        self,
        layer: nn.Module,  # noqa: ARG002 -- part of PagedStep
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        num_tokens = len(query)
        lengths = torch.tensor([0, num_tokens], dtype=torch.int32)
        batch = AttentionBatch(
            cu_seqlens_q=lengths,
            seq_lens_k=lengths[1:],
            block_tables=torch.zeros((1, 1), dtype=torch.int32),
            query_lens=(num_tokens,),
            kv_lens=(num_tokens,),
            num_decodes=0,
            max_seqlen_q=num_tokens,
            max_seqlen_k=num_tokens,
            block_tokens=num_tokens,
        )
        cache = KvCache(
            [LayerShape(keys.shape[1], keys.shape[2], values.shape[2])],
            num_blocks=1,
            block_tokens=num_tokens,
            dtype=query.dtype,
            device=query.device,
        )
        cache.write(0, keys, values, torch.arange(num_tokens))
        return ReferenceBackend().plan(batch).attend(query, *cache.pages(0), params)


def _checked(model: PreTrainedModel, plan: DecoderPlan) -> list[int]:
    """Return the first and the last layer of each kind.

    Layers are of one kind if their plans are, and the plain attributes of their modules: those may
    turn off what the plan does not see.
    """
    kinds: dict[object, list[int]] = {}
    for index, layer in enumerate(model.get_decoder().layers):
        kind = (_scalars_of_plan(plan.layers[index]), *map(_attributes, layer.modules()))
        kinds.setdefault(kind, []).append(index)
    return sorted({index for same in kinds.values() for index in (same[0], same[-1])})


def _scalars_of_plan(layer: PlanLayer) -> tuple[object, ...]:
    shapes = [linear.out_features for linear in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    chosen = (layer.rope, layer.window, layer.activation, layer.scale, layer.softcap)
    return (*shapes, *chosen)


def _attributes(module: nn.Module) -> tuple[object, ...]:
    """Return class and plain attributes of a module, its number left out."""
    plain = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and name not in {"layer_idx", "kv_layer"}
    }
    return (type(module), *sorted(plain.items()))


def _first_rows(parameter: torch.Tensor, count: int) -> nn.Parameter:
    """Return so many rows of a matrix, or values of a bias, in float32."""
    return nn.Parameter(read_rows(parameter, 0, count), requires_grad=False)


def _cut(linear: PlanLinear, count: int) -> PlanLinear:
    """Return the first `count` outputs of a matrix that is not stacked."""
    biases = tuple(None if bias is None else bias[:count] for bias in linear.biases)
    return PlanLinear((read_rows(linear.weights[0], 0, count),), biases)


def _float_copy(module: nn.Module) -> nn.Module:
    """Return a copy of `module` with parameters and buffers in float32, and nothing else copied."""
    tensors = (*module.parameters(), *module.buffers())
    memo: dict[int, Any] = {id(tensor): _float(tensor) for tensor in tensors}
    for part in module.modules():
        config = getattr(part, "config", None)
        memo[id(config)] = config
    return copy.deepcopy(module, memo)


def _float(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype == torch.float32:
        return tensor  # which may lie in a file yet
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach().float(), requires_grad=False)
    return tensor.float() if tensor.is_floating_point() else tensor
