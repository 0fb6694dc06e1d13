"""Which work is done on which model, and what room a server needs for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.peers.peer import Shape
from bench.peers.results import START
from bench.serve.workloads import DRAFTED, WORKLOADS
from cortex_core.ids import ModelId
from cortexd.up.defaults import DEFAULT_MODEL, SECOND_MODEL

SMOLLM2: Final = ModelId(DEFAULT_MODEL)
GEMMA3: Final = ModelId(SECOND_MODEL)
MODELS: Final = {"smollm2": SMOLLM2, "gemma3": GEMMA3}
"""By the name in `--models`."""
USUAL: Final = Shape(streams=16, context_tokens=4096)
"""llama.cpp divides one context among its slots, so room that is not needed costs memory."""
SHAPES: Final = {"W2x64": Shape(64, 512), "W6": Shape(10, 20_480)}
"""By workload, where it is not the usual one."""
LONG_CONTEXT: Final = {"W6": GEMMA3}
"""By workload, the only model whose own context is long enough."""
WITH_DRAFTS: Final = "-drafts"
"""What the name of a format with drafts ends with."""
ORDER: Final = (START, *WORKLOADS)
REPETITION_MINUTES: Final = 3.0
"""A repetition of most workloads takes seconds, of the slowest server a minute: who takes longer
stands still, as threads that wait for each other by spinning do beside a busy process."""
LONGER_MINUTES: Final = {"W5": 6.0, "W6": 6.0}
"""By workload, where prompts alone are a minute's work and more."""


def work_for(weight_format: str, workloads: Sequence[str]) -> list[str]:
    """Return which of them a format is measured with: with drafts, those that are about drafts."""
    drafts = weight_format.endswith(WITH_DRAFTS)
    return [name for name in workloads if not drafts or name in DRAFTED]


def limit_minutes(workload: str, repetitions: int) -> float:
    """Return after how long a run of a workload is given up."""
    return repetitions * LONGER_MINUTES.get(workload, REPETITION_MINUTES)


@dataclass(frozen=True)
class Plan:
    """What was asked for. A peer is measured with those of `formats` that it has."""

    models: Sequence[ModelId]
    workloads: Sequence[str]
    formats: Sequence[str]

    def starts(self) -> dict[tuple[ModelId, Shape], list[str]]:
        """Return the workloads by what a server must be started with for them."""
        found: dict[tuple[ModelId, Shape], list[str]] = {}
        for model in self.models:
            for workload in self.workloads:
                if LONG_CONTEXT.get(workload, model) == model:
                    needs = (model, SHAPES.get(workload, USUAL))
                    found.setdefault(needs, []).append(workload)
        return found

    def is_empty(self, formats_of: Sequence[Callable[[ModelId], Sequence[str]]]) -> bool:
        """Tell whether nobody has any work by it, of peers given by their `Peer.formats_of`."""
        return not any(
            work_for(name, names)
            for (model, _), names in self.starts().items()
            for formats in formats_of
            for name in formats(model)
            if name in self.formats
        )
