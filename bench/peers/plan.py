"""Which work is done on which model, and what room a server needs for it."""

from collections.abc import Sequence
from typing import Final

from bench.peers.peer import Shape
from bench.serve.workloads import WORKLOADS
from cortex_core.ids import ModelId
from cortexd.up.defaults import DEFAULT_MODEL, SECOND_MODEL

USUAL: Final = Shape(streams=16, context_tokens=4096)
"""llama.cpp divides one context among its slots, so room that is not needed costs memory."""
SHAPES: Final = {"W2x64": Shape(64, 512), "W6": Shape(10, 20_480)}
"""By workload, where it is not the usual one."""
LONG_CONTEXT: Final = {"W6"}
"""Needs a model whose own context is long."""
ORDER: Final = tuple(WORKLOADS)


def model_of(workload: str) -> ModelId:
    """Return the model that a workload runs on."""
    return ModelId(SECOND_MODEL if workload in LONG_CONTEXT else DEFAULT_MODEL)


def starts(workloads: Sequence[str]) -> dict[tuple[ModelId, Shape], list[str]]:
    """Return the workloads by what a server must be started with for them."""
    found: dict[tuple[ModelId, Shape], list[str]] = {}
    for workload in workloads:
        needs = (model_of(workload), SHAPES.get(workload, USUAL))
        found.setdefault(needs, []).append(workload)
    return found
