"""The workloads that are one kind of work at a time; `workloads` says what each is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from bench.serve.figures import Figures, good, median, percentile, told
from bench.serve.prompts import PromptMaker
from bench.serve.running import RunningStreams
from bench.serve.stream import StreamResult
from bench.serve.target import Target

SHORT_PROMPT_TOKENS: Final = 64
SHORT_OUTPUT_TOKENS: Final = 128
LONG_PROMPT_TOKENS: Final = 2000
SHARED_PREFIX_TOKENS: Final = 1500
LONG_STREAMS: Final = 16
LONG_OUTPUT_TOKENS: Final = 64

Found = tuple[list[StreamResult], Figures]
Workload = Callable[[Target, PromptMaker, int], Awaitable[Found]]


async def one_stream(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """W1."""
    results = [
        await target.complete(prompts.text(SHORT_PROMPT_TOKENS), SHORT_OUTPUT_TOKENS)
        for _ in range(repetitions)
    ]
    return results, figures_of_single(results)


def figures_of_single(results: list[StreamResult]) -> Figures:
    """Return the figures of streams that ran one after another."""
    fine = good(results)
    return {
        **told("decode_tokens_per_s", [r.decode_tokens_per_s or 0.0 for r in fine]),
        **told("end_to_end_tokens_per_s", [r.end_to_end_tokens_per_s for r in fine]),
        **told("ttft_ms", [1000 * r.ttft_s for r in fine]),
    }


def many_streams(concurrency: int) -> Workload:
    """W2 with so many streams at once.

    The total is end to end, over the time from the first request to the end of the last stream.
    Decoding is the sum of the streams' own rates, each from its first token on.
    """

    async def run(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
        results: list[StreamResult] = []
        totals: list[float] = []
        decoding: list[float] = []
        for _ in range(repetitions):
            texts = [prompts.text(SHORT_PROMPT_TOKENS) for _ in range(concurrency)]
            batch = await asyncio.gather(*[target.complete(t, SHORT_OUTPUT_TOKENS) for t in texts])
            wall = max(r.ended for r in batch) - min(r.started for r in batch)
            totals.append(sum(r.tokens for r in batch) / wall)
            decoding.append(sum(r.decode_tokens_per_s or 0.0 for r in batch))
            results += batch
        fine = good(results)
        intervals = [i for r in fine for i in r.intervals_s]
        return results, {
            **told("total_tokens_per_s", totals),
            **told("decode_tokens_per_s", decoding),
            "ttft_ms": 1000 * median([r.ttft_s for r in fine]),
            "itl_p50_ms": 1000 * percentile(intervals, 50),
            "itl_p95_ms": 1000 * percentile(intervals, 95),
        }

    return run


async def long_prompt(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """W3."""
    results = [
        await target.complete(prompts.text(LONG_PROMPT_TOKENS), 16) for _ in range(repetitions)
    ]
    return results, told("ttft_ms", [1000 * r.ttft_s for r in good(results)])


async def shared_prefix(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """W4. Runs once for each repetition, with another prefix."""
    results: list[StreamResult] = []
    first: list[float] = []
    rest: list[float] = []
    for _ in range(repetitions):
        prefix = prompts.text(SHARED_PREFIX_TOKENS)
        batch = [await target.complete(prompts.text(24), 32, system=prefix) for _ in range(16)]
        results += batch
        fine = good(batch)
        first += [1000 * r.ttft_s for r in fine[:1]]
        rest += [1000 * r.ttft_s for r in fine[1:]]
    return results, {
        **told("ttft_first_ms", first),
        **told("ttft_rest_ms", rest),
        "cached_tokens": sorted({r.cached_tokens for r in results if r.cached_tokens is not None}),
    }


async def long_contexts(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """W5: counted from when all streams decode until each has got 64 tokens more."""
    results: list[StreamResult] = []
    totals: list[float] = []
    for _ in range(repetitions):
        texts = [prompts.text(LONG_PROMPT_TOKENS) for _ in range(LONG_STREAMS)]
        async with RunningStreams(target, texts) as streams:
            await streams.have(1)
            began = max(r.chunk_times[0] for r in streams.results)
            before = [len(r.chunk_times) for r in streams.results]
            await streams.have_more(LONG_OUTPUT_TOKENS)
            ended = max(r.chunk_times[-1] for r in streams.results)
            tokens = sum(len(r.chunk_times) for r in streams.results) - sum(before)
        totals.append(tokens / (ended - began))
        results += streams.results
    return results, told("total_tokens_per_s", totals)
