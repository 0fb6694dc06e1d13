"""The workloads that every server is given.

W1     one stream, 64 tokens in, 128 out
W2     16 streams at once of the same; W2x64 with 64
W3     one stream, 2,000 tokens in, 16 out: time to first token
W4     16 requests in turn that share a prefix of 1,500 tokens: prefix cache
W5     16 streams with 2,000 tokens of context each: tokens/s while all decode
W6     8 streams while a prompt of 4,000, then one of 18,000 tokens comes in: time between tokens
mixed  chats, long prompts, shared prefixes, long answers, one a second by a Poisson process
busy   W1 and W2, alone and beside a process that takes a core
copy   one stream that repeats what stands in its prompt
prose  one stream of sampled prose
"""

from collections.abc import Sequence
from typing import Final

from bench.serve.figures import Figures, good
from bench.serve.interference import busy_neighbour, incoming_prompt
from bench.serve.machine import CpuMeter, resident_memory
from bench.serve.mixed import mixed_traffic
from bench.serve.prompts import PromptMaker
from bench.serve.steady import (
    Workload,
    long_contexts,
    long_prompt,
    many_streams,
    one_stream,
    shared_prefix,
)
from bench.serve.stream import StreamResult
from bench.serve.target import Target
from bench.serve.texts import copying, prose

MIN_CHUNKS_PER_TOKEN: Final = 0.9
DRAFTED: Final = frozenset({"copy", "prose"})
"""Workloads that are there to see what drafts are worth: accepted ones may come in one chunk."""

WORKLOADS: dict[str, Workload] = {
    "W1": one_stream,
    "W2": many_streams(16),
    "W2x64": many_streams(64),
    "W3": long_prompt,
    "W4": shared_prefix,
    "W5": long_contexts,
    "W6": incoming_prompt,
    "mixed": mixed_traffic,
    "busy": busy_neighbour,
    "copy": copying,
    "prose": prose,
}


async def measure(name: str, target: Target, prompts: PromptMaker, repetitions: int) -> Figures:
    """Run one workload and return its figures with the machine's state beside them."""
    meter = CpuMeter(target.pids)
    results, figures = await WORKLOADS[name](target, prompts, repetitions)
    cpu = meter.stop()
    memory = resident_memory(target.pids)
    errors = [r.error for r in results if r.error]
    fine = good(results)
    chunks_per_token = _chunks_per_token(fine, prompts)
    return {
        "workload": name,
        **figures,
        "repetitions": repetitions,
        "requests": len(results),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "chunks_per_token": chunks_per_token,
        "foreign_cores": cpu.foreign_cores,
        "server_cores": cpu.server_cores,
        "client_cores": cpu.client_cores,
        "server_cpu_ms_per_token": 1000 * cpu.server_cpu_s / max(1, sum(r.tokens for r in fine)),
        "server_rss_mib": memory.rss_mib,
        "server_pss_mib": memory.pss_mib,
        "counts": not errors and cpu.is_clean and has_chunks(name, chunks_per_token),
        "sample": fine[0].text[:80] if fine else "",
    }


def has_chunks(name: str, chunks_per_token: float) -> bool:
    """Tell whether the times of chunks stand for those of tokens, as figures of that work need."""
    return name in DRAFTED or chunks_per_token >= MIN_CHUNKS_PER_TOKEN


def _chunks_per_token(results: Sequence[StreamResult], prompts: PromptMaker) -> float:
    """Return how well chunks stand for tokens: all chunks of streams over all of their tokens.

    Tokens are those that the server counted. A stream of W5 or W6 is cut when the measurement is
    over, before its usage comes: what it said is encoded anew, which rarely gives other tokens.
    """
    num_tokens = sum(r.counted_tokens or prompts.count(r.text) for r in results)
    return sum(len(r.chunk_times) for r in results) / num_tokens if num_tokens else 0.0
