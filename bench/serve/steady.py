"""The workloads that are one kind of work at a time; `workloads` says what each is."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from bench.serve.figures import Figures, good, median, percentile, told
from bench.serve.prompts import PromptMaker
from bench.serve.running import RunningStreams, StreamEnded
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
    Decoding is all tokens after the first one, over the time from the first chunk of any stream to
    the last of any: where streams wait for others, their waiting is in it.
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
            decoding.append(_decoding_rate(batch))
            results += batch
        fine = good(results)
        intervals = [i for r in fine for i in r.intervals_s]
        return results, {
            **told("total_tokens_per_s", totals),
            **told("batch_decode_tokens_per_s", decoding),
            "ttft_ms": 1000 * median([r.ttft_s for r in fine]),
            "itl_p50_ms": 1000 * percentile(intervals, 50),
            "itl_p95_ms": 1000 * percentile(intervals, 95),
        }

    return run


def _decoding_rate(batch: list[StreamResult]) -> float:
    times = [time for r in batch for time in r.chunk_times]
    if not times or max(times) == min(times):
        return 0.0
    return (sum(r.tokens for r in batch) - 1) / (max(times) - min(times))


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
    """W5: counted from when all streams decode until each has got 64 tokens more.

    A round in which a stream ends before that has no figure.
    """
    results: list[StreamResult] = []
    totals: list[float] = []
    for _ in range(repetitions):
        texts = [prompts.text(LONG_PROMPT_TOKENS) for _ in range(LONG_STREAMS)]
        streams = RunningStreams(target, texts)
        with contextlib.suppress(StreamEnded):  # the stream's result says so
            totals.append(await _rate_of_all(streams))
        results += streams.results
    return results, told("total_tokens_per_s", totals) if totals else {}


async def _rate_of_all(streams: RunningStreams) -> float:
    """Let streams run until they are measured; return the tokens per second of all together."""
    async with streams:
        await streams.have(1)
        began = max(r.chunk_times[0] for r in streams.results)
        before = sum(len(r.chunk_times) for r in streams.results)
        await streams.have_more(LONG_OUTPUT_TOKENS)
        ended = max(r.chunk_times[-1] for r in streams.results)
        return (sum(len(r.chunk_times) for r in streams.results) - before) / (ended - began)
