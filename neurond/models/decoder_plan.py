"""What a decoder computes, in the terms of the CPU kernels: read off a model, checked against it.

Weights are the model's own tensors, not copies, and may still be in its files, see `FileMatrix`.
`plan_reader` makes plans, `plan_check` proves them, `plan_reference` computes them slowly, `pack`
writes them down for the kernels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from neurond.models.file_matrix import read_numbered, read_rows


class Unplannable(Exception):
    """While a plan is read; the message says what it has no place for."""


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why a model has no plan; it runs per operation under torch."""

    reason: str


@dataclass(frozen=True, slots=True)
class PlanLinear:
    """Matrices [out, in] that share their input, stacked along their outputs."""

    weights: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor | None, ...]
    is_wide: bool = False
    """Stays int8 where others are packed as int4: its file has more bits."""
    order: torch.Tensor | None = None
    """Numbers of the weights' rows in the order of the outputs, or None where that is theirs."""

    @property
    def out_features(self) -> int:
        return sum(weight.shape[0] for weight in self.weights)

    @property
    def in_features(self) -> int:
        return self.weights[0].shape[1]

    def rows(self, first: int, stop: int) -> torch.Tensor:
        """Return rows [first, stop) as contiguous float32 [stop - first, in_features]."""
        if self.order is not None:
            return self._ordered_rows(self.order[first:stop])
        found = torch.empty(stop - first, self.in_features)
        start = 0
        for weight in self.weights:
            end = start + weight.shape[0]
            if start <= first and stop <= end:
                return read_rows(weight, first - start, stop - start)
            if first < end and stop > start:
                begin, behind = max(first, start), min(stop, end)
                found[begin - first : behind - first] = read_rows(
                    weight, begin - start, behind - start
                )
            start = end
        return found

    def bias(self) -> torch.Tensor | None:
        """Return the stacked bias as float32 [out_features], or None where no matrix has one."""
        if all(bias is None for bias in self.biases):
            return None
        parts = zip(self.weights, self.biases, strict=True)
        stacked = torch.cat(
            [torch.zeros(len(weight)) if bias is None else bias.float() for weight, bias in parts]
        )
        return stacked if self.order is None else stacked[self.order]

    def _ordered_rows(self, numbers: torch.Tensor) -> torch.Tensor:
        found = torch.empty(len(numbers), self.in_features)
        start = 0
        for weight in self.weights:
            of_part = (numbers >= start) & (numbers < start + len(weight))
            found[of_part] = read_numbered(weight, numbers[of_part] - start)
            start += len(weight)
        return found


@dataclass(frozen=True, slots=True)
class PlanRope:
    """Rotary tables of neox-style halves, computed by the model's own module.

    Models that turn neighbours instead have their queries and keys in another order in the plan.
    """

    num_positions: int
    rotary_dim: int
    compute: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    """From positions [n] to cosines and sines, float32 [n, rotary_dim / 2] each."""


@dataclass(frozen=True, slots=True)
class PlanLayer:
    """One layer, as `cortex_layer` in kernels/csrc/abi.h.

    Weights of norms are float32 and what is multiplied by: Gemma's have 1 added.
    """

    input_norm: torch.Tensor
    qkv: PlanLinear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    sinks: torch.Tensor | None
    o: PlanLinear
    post_attention_norm: torch.Tensor | None
    pre_ffn_norm: torch.Tensor
    gate_up: PlanLinear
    down: PlanLinear
    post_ffn_norm: torch.Tensor | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: int | None
    """Index into `DecoderPlan.ropes`; None where attention does not know positions."""
    window: int | None
    activation: str
    """A key of `kernels.abi.ACTIVATIONS`."""
    scale: float
    softcap: float | None

    def with_wide(self, is_wide: Callable[[torch.Tensor], bool]) -> "PlanLayer":
        """Return the layer with those matrices marked that have a part that `is_wide`."""

        def marked(linear: PlanLinear) -> PlanLinear:
            return replace(linear, is_wide=any(map(is_wide, linear.weights)))

        return replace(
            self,
            qkv=marked(self.qkv),
            o=marked(self.o),
            gate_up=marked(self.gate_up),
            down=marked(self.down),
        )


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """A whole decoder."""

    embedding: torch.Tensor
    """[vocab_size, hidden]"""
    embedding_scale: float
    layers: tuple[PlanLayer, ...]
    ropes: tuple[PlanRope, ...]
    final_norm: torch.Tensor
    norm_eps: float
    """Of every norm."""
    head: PlanLinear
    final_softcap: float | None
    two_way_tokens: int | None = None
    """See `engine.vision.Vision`; None where the model takes text only."""

    @property
    def hidden(self) -> int:
        return self.embedding.shape[1]

    @property
    def vocab_size(self) -> int:
        return self.head.out_features
