"""What a server's streams suffer from others: a long prompt beside them, a busy neighbour."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from bench.serve.figures import Figures, intervals_within, percentile, told
from bench.serve.prompts import PromptMaker
from bench.serve.running import RunningStreams, StreamEnded
from bench.serve.steady import SHORT_PROMPT_TOKENS, Found, many_streams, one_stream
from bench.serve.stream import StreamResult
from bench.serve.target import Target

DECODING_STREAMS: Final = 8
QUIET_TOKENS: Final = 48
INCOMING_TOKENS: Final = (4000, 18_000)
ROOM_TOKENS: Final = 32
SPIN: Final = """
import os
while os.getppid() == {parent}:
    for _ in range(1000000):
        pass
"""


async def incoming_prompt(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """W6: each length of prompt beside streams of its own; those that do not fit are left out."""
    results: list[StreamResult] = []
    figures: Figures = {}
    for num_tokens in INCOMING_TOKENS:
        limit = target.context_tokens
        if limit is not None and num_tokens + ROOM_TOKENS > limit:
            figures[f"skipped_{num_tokens}"] = f"the context has {limit} tokens"
            continue
        rounds = []
        for _ in range(repetitions):
            measured, came = await _beside(target, prompts, num_tokens)
            rounds.append(measured)
            results += came
        figures |= _told_of_all([measured for measured in rounds if measured])
    return results, figures


def _told_of_all(rounds: list[dict[str, float]]) -> Figures:
    """Return the figures of rounds that had no error; without any there are none."""
    names = rounds[0] if rounds else ()
    return {k: v for name in names for k, v in told(name, [r[name] for r in rounds]).items()}


async def _beside(
    target: Target, prompts: PromptMaker, num_tokens: int
) -> tuple[dict[str, float], list[StreamResult]]:
    """Return figures of one incoming prompt and the streams that were there.

    There are no figures if one of them failed; the prompt's error is the first then.
    """
    incoming = prompts.text(num_tokens)
    texts = [prompts.text(SHORT_PROMPT_TOKENS) for _ in range(DECODING_STREAMS)]
    streams = RunningStreams(target, texts)
    came = list(streams.results)
    try:
        async with streams:
            await streams.have(8)
            began = max(r.chunk_times[-1] for r in streams.results)
            await streams.have_more(QUIET_TOKENS)
            prompt = await target.complete(incoming, 2)
            if prompt.error is not None:
                return {}, [prompt, *came]
            came.append(prompt)
            await streams.have_more(1)  # what it held up has to come to an end
            streams.check()
    except StreamEnded:
        return {}, came
    quiet = _intervals(streams.results, began, prompt.started)
    beside = _intervals(streams.results, prompt.started, prompt.chunk_times[0])
    return {
        f"itl_quiet_{num_tokens}_p95_ms": percentile(quiet, 95),
        f"itl_beside_{num_tokens}_p95_ms": percentile(beside, 95),
        f"itl_beside_{num_tokens}_max_ms": max(beside, default=0.0),
        f"ttft_{num_tokens}_ms": 1000 * prompt.ttft_s,
    }, came


def _intervals(results: list[StreamResult], begin: float, end: float) -> list[float]:
    """Return all streams' times between chunks in ms."""
    return [1000 * i for r in results for i in intervals_within(r, begin, end)]


async def busy_neighbour(target: Target, prompts: PromptMaker, repetitions: int) -> Found:
    """Run W1 and W2 quiet, then beside a process that takes all it can get of one core."""
    results: list[StreamResult] = []
    figures: Figures = {}
    for prefix in ("quiet", "busy"):
        with _spinning() if prefix == "busy" else contextlib.nullcontext():
            for workload, name in (
                (one_stream, "decode_tokens_per_s"),
                (many_streams(16), "total_tokens_per_s"),
            ):
                came, found = await workload(target, prompts, repetitions)
                results += came
                figures |= told(f"{prefix}_{name}", found[f"{name}_all"])
    return results, figures


@contextlib.contextmanager
def _spinning() -> Iterator[None]:
    """Keep one core busy; reaped at the end, so that its CPU time counts as the client's."""
    spinner = subprocess.Popen([sys.executable, "-c", SPIN.format(parent=os.getpid())])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()
