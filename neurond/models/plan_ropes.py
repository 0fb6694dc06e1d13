"""Which rotary table each layer of a decoder gets: observed, and computed by the model itself.

Gemma 3 has two tables, chosen by the kind of layer; most models have one.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from neurond.models.decoder_plan import PlanRope, Unplannable


@dataclass(frozen=True, slots=True)
class RotaryCall:
    """One call of a rotary module."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def key(self) -> tuple[object, ...]:
        """What tells the table of this call from others: the module, and whatever is no tensor."""
        values = (*self.args, *self.kwargs.values())
        return (self.module, *(v for v in values if not isinstance(v, torch.Tensor)))

    def again(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines [n, rotary_dim] at `positions` [n], in float32."""

        def replaced(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            # The module takes the type of its result from a floating tensor, and nothing else.
            return torch.zeros(1) if value.is_floating_point() else positions[None]

        with torch.inference_mode():
            cos, sin = self.module(
                *map(replaced, self.args),
                **{name: replaced(value) for name, value in self.kwargs.items()},
            )
        return cos[0], sin[0]


@dataclass(slots=True)
class Watched:
    """What was called while tokens ran through a decoder."""

    rotary_calls: list[RotaryCall] = field(default_factory=list)
    positions_of: dict[nn.Module, object] = field(default_factory=dict)
    """The `position_embeddings` that each layer got."""


@contextmanager
def watch(decoder: nn.Module, layers: nn.ModuleList) -> Iterator[Watched]:
    """Note the calls of the decoder's rotary modules and of its layers."""
    watched = Watched()

    def rotated(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        watched.rotary_calls.append(RotaryCall(module, args, kwargs, result))

    def entered(module: nn.Module, _: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watched.positions_of[module] = kwargs.get("position_embeddings")

    with ExitStack() as hooks:
        for name, module in decoder.named_children():
            if "rotary" in name:
                hooks.callback(module.register_forward_hook(rotated, with_kwargs=True).remove)
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(entered, with_kwargs=True).remove)
        yield watched


class Ropes:
    """The distinct tables of a decoder, in the order in which its layers need them."""

    def __init__(self, watched: Watched, num_positions: int) -> None:
        self.found: list[PlanRope] = []
        self._watched = watched
        self._num_positions = num_positions
        self._keys: list[object] = []

    def index_of(self, layer: nn.Module) -> int:
        """Return the index of the table that `layer` gets.

        Raises:
            Unplannable: it gets none, or one that is not made of halves.
        """
        given = self._watched.positions_of.get(layer)
        for call in self._watched.rotary_calls:
            if isinstance(given, tuple) and given[0] is call.result[0]:
                if call.key not in self._keys:
                    self.found.append(_rope(call, self._num_positions))
                    self._keys.append(call.key)
                return self._keys.index(call.key)
        raise Unplannable("its layers do not get their positions from the decoder's rotary module")


def turns_neighbours(attention: nn.Module) -> bool:
    """Whether dimensions 2 i and 2 i + 1 of a head turn together, by the function that does it."""
    rotate = getattr(sys.modules[type(attention).__module__], "rotate_half", None)
    return rotate is not None and rotate(torch.arange(4.0)).tolist() == [-1.0, 0.0, -3.0, 2.0]


def _rope(call: RotaryCall, num_positions: int) -> PlanRope:
    cos, _ = call.again(torch.arange(4))
    first, second = cos.chunk(2, dim=-1)
    if not torch.equal(first, second):
        raise Unplannable("its rotary embedding does not turn halves of a head")
    return PlanRope(num_positions, cos.shape[-1], partial(_halves, call))


def _halves(call: RotaryCall, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = call.again(positions)
    half = cos.shape[-1] // 2
    return cos[:, :half], sin[:, :half]
