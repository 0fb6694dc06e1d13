"""Traffic of several kinds that comes when it comes, at the same times for every server."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.serve.figures import Figures, good, percentile, told
from bench.serve.prompts import PromptMaker
from bench.serve.steady import Found
from bench.serve.stream import StreamResult
from bench.serve.target import Target

REQUESTS_PER_S: Final = 1.0
"""What the slowest peers can just do on two cores: who is faster waits less, not for less work."""
PREFIX_TOKENS: Final = 800
SEED: Final = 20_261_130
"""Of when requests come and how long they are; their words are those of the run."""


@dataclass(frozen=True)
class Kind:
    """One kind of request; each has one of the lengths of `output_tokens`."""

    name: str
    requests: int
    """Of a repetition."""
    prompt_tokens: int
    """After the shared prefix, where it has that."""
    output_tokens: Sequence[int]
    has_prefix: bool = False


MIX: Final = (
    Kind("chat", 20, 48, (32, 64, 128)),
    Kind("long prompt", 6, 1500, (16, 32)),
    Kind("shared prefix", 10, 32, (32, 64), has_prefix=True),
    Kind("long answer", 4, 48, (256, 384)),
)


@dataclass(frozen=True)
class Arrival:
    """One request, so many seconds after the first one could come."""

    at_s: float
    kind: Kind
    output_tokens: int


def arrivals(repetition: int) -> list[Arrival]:
    """Return the requests of one repetition: always the same ones, other times in another."""
    chance = random.Random(SEED + repetition)
    kinds = [kind for kind in MIX for _ in range(kind.requests)]
    chance.shuffle(kinds)
    at_s = 0.0
    found = []
    for kind in kinds:
        at_s += chance.expovariate(REQUESTS_PER_S)  # a Poisson process
        found.append(Arrival(at_s, kind, chance.choice(kind.output_tokens)))
    return found


async def mixed_traffic(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """Each repetition has a prefix of its own; tokens/s are from its first request to its end."""
    batches = [await _batch(target, prompts, arrivals(n)) for n in range(repetitions)]
    rounds = [_figures(good(batch)) for batch in batches if good(batch)]
    names = rounds[0] if rounds else ()
    figures: Figures = {}
    for name in names:
        figures |= told(name, [found[name] for found in rounds])
    return [result for batch in batches for result in batch], figures


async def _batch(
    target: Target, prompts: PromptMaker, coming: Sequence[Arrival]
) -> list[StreamResult]:
    """Send each request at its time, whatever became of those before."""
    prefix = prompts.text(PREFIX_TOKENS)
    texts = [prompts.text(each.kind.prompt_tokens) for each in coming]
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def send(arrival: Arrival, text: str) -> StreamResult:
        await asyncio.sleep(began + arrival.at_s - loop.time())
        system = prefix if arrival.kind.has_prefix else ""
        return await target.complete(text, arrival.output_tokens, system=system)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send(*each)) for each in zip(coming, texts, strict=True)]
    return [task.result() for task in tasks]


def _figures(results: Sequence[StreamResult]) -> dict[str, float]:
    first_ms = [1000 * r.ttft_s for r in results]
    between_ms = [1000 * interval for r in results for interval in r.intervals_s]
    wall_s = max(r.ended for r in results) - min(r.started for r in results)
    return {
        "total_tokens_per_s": sum(r.tokens for r in results) / wall_s,
        "ttft_p50_ms": percentile(first_ms, 50),
        "ttft_p95_ms": percentile(first_ms, 95),
        "itl_p50_ms": percentile(between_ms, 50),
        "itl_p95_ms": percentile(between_ms, 95),
    }
