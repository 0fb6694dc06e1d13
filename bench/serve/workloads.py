"""The workloads that every server is given.

W1  one stream, 64 tokens in, 128 out
W2  16 streams at once of the same; W2x64 with 64
W3  one stream, 2,000 tokens in, 16 out: time to first token
W4  16 requests in turn that share a prefix of 1,500 tokens: prefix cache
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.serve.machine import CpuMeter
from bench.serve.prompts import PromptMaker
from bench.serve.stream import StreamResult, stream_completion

SHORT_PROMPT_TOKENS = 64
SHORT_OUTPUT_TOKENS = 128
LONG_PROMPT_TOKENS = 2000
SHARED_PREFIX_TOKENS = 1500


@dataclass(frozen=True)
class Target:
    """A server under test. `extra` is merged into every request body."""

    url: str
    model: str
    api: str
    pids: Sequence[int]
    extra: dict[str, Any]
    timeout_s: float

    async def complete(self, prompt: str, max_tokens: int, system: str = "") -> StreamResult:
        """Send one greedy request and time its stream."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }
        if self.api == "completions":
            body["prompt"] = f"{system}\n{prompt}" if system else prompt
            path = "/v1/completions"
        else:
            turns = [{"role": "system", "content": system}] if system else []
            body["messages"] = [*turns, {"role": "user", "content": prompt}]
            path = "/v1/chat/completions"
        return await stream_completion(self.url, path, body, timeout_s=self.timeout_s)


Figures = dict[str, Any]
Workload = Callable[[Target, PromptMaker, int], Awaitable[tuple[list[StreamResult], Figures]]]


async def one_stream(
    target: Target, prompts: PromptMaker, repetitions: int
) -> tuple[list[StreamResult], Figures]:
    """W1."""
    results = [
        await target.complete(prompts.text(SHORT_PROMPT_TOKENS), SHORT_OUTPUT_TOKENS)
        for _ in range(repetitions)
    ]
    good = _good(results)
    return results, {
        "decode_tokens_per_s": _median([r.decode_tokens_per_s or 0.0 for r in good]),
        "end_to_end_tokens_per_s": _median([r.end_to_end_tokens_per_s for r in good]),
        "ttft_ms": 1000 * _median([r.ttft_s for r in good]),
        "all_decode": [round(r.decode_tokens_per_s or 0.0, 1) for r in good],
    }


def many_streams(concurrency: int) -> Workload:
    """W2 with so many streams at once."""

    async def run(
        target: Target, prompts: PromptMaker, repetitions: int
    ) -> tuple[list[StreamResult], Figures]:
        results: list[StreamResult] = []
        totals: list[float] = []
        for _ in range(repetitions):
            texts = [prompts.text(SHORT_PROMPT_TOKENS) for _ in range(concurrency)]
            batch = await asyncio.gather(*[target.complete(t, SHORT_OUTPUT_TOKENS) for t in texts])
            wall = max(r.ended for r in batch) - min(r.started for r in batch)
            totals.append(sum(r.tokens for r in batch) / wall)
            results += batch
        good = _good(results)
        intervals = [i for r in good for i in r.intervals_s]
        return results, {
            "total_tokens_per_s": _median(totals),
            "ttft_ms": 1000 * _median([r.ttft_s for r in good]),
            "itl_p50_ms": 1000 * _percentile(intervals, 50),
            "itl_p95_ms": 1000 * _percentile(intervals, 95),
            "all_totals": [round(t, 1) for t in totals],
        }

    return run


async def long_prompt(
    target: Target, prompts: PromptMaker, repetitions: int
) -> tuple[list[StreamResult], Figures]:
    """W3."""
    results = [
        await target.complete(prompts.text(LONG_PROMPT_TOKENS), 16) for _ in range(repetitions)
    ]
    ttfts = [r.ttft_s for r in _good(results)]
    return results, {"ttft_ms": 1000 * _median(ttfts), "all_ttft_s": [round(t, 3) for t in ttfts]}


async def shared_prefix(
    target: Target, prompts: PromptMaker, repetitions: int
) -> tuple[list[StreamResult], Figures]:
    """W4. Runs once for each repetition, with another prefix."""
    results: list[StreamResult] = []
    first: list[float] = []
    rest: list[float] = []
    for _ in range(repetitions):
        prefix = prompts.text(SHARED_PREFIX_TOKENS)
        batch = [await target.complete(prompts.text(24), 32, system=prefix) for _ in range(16)]
        results += batch
        good = _good(batch)
        first += [r.ttft_s for r in good[:1]]
        rest += [r.ttft_s for r in good[1:]]
    return results, {
        "ttft_first_ms": 1000 * _median(first),
        "ttft_rest_ms": 1000 * _median(rest),
        "cached_tokens": sorted({r.cached_tokens for r in results if r.cached_tokens is not None}),
    }


WORKLOADS: dict[str, Workload] = {
    "W1": one_stream,
    "W2": many_streams(16),
    "W2x64": many_streams(64),
    "W3": long_prompt,
    "W4": shared_prefix,
}


async def measure(name: str, target: Target, prompts: PromptMaker, repetitions: int) -> Figures:
    """Run one workload and return its figures with the machine's state beside them."""
    meter = CpuMeter(target.pids)
    results, figures = await WORKLOADS[name](target, prompts, repetitions)
    cpu = meter.stop()
    errors = [r.error for r in results if r.error]
    good = _good(results)
    chunks_per_token = _median([len(r.chunk_times) / r.tokens for r in good])
    return {
        "workload": name,
        **figures,
        "requests": len(results),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "chunks_per_token": chunks_per_token,
        "foreign_cores": cpu.foreign_cores,
        "server_cores": cpu.server_cores,
        "client_cores": cpu.client_cores,
        "server_cpu_ms_per_token": 1000 * cpu.server_cpu_s / max(1, sum(r.tokens for r in good)),
        "server_rss_mib": cpu.server_rss_mib,
        "counts": not errors and cpu.is_clean and chunks_per_token >= 0.9,
        "sample": good[0].text[:80] if good else "",
    }


def _good(results: list[StreamResult]) -> list[StreamResult]:
    return [r for r in results if r.error is None]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
