"""`python -m bench.overhead`: processor time for each token, process by process."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.circumstances import circumstances, write_clean
from bench.named import positive
from bench.overhead.meter import COUNTS_FILE, METERED, PACE_MS, PACED
from bench.overhead.processes import Processes, used
from bench.overhead.report import Window, middle, quiet_table, tokens_table
from bench.serve.machine import CpuMeter, CpuUse, at_rest
from bench.serve.prompts import PromptMaker
from bench.serve.running import RunningStreams
from bench.serve.target import Target
from tests.fakes.model_cache import SMOLLM2, cached_model

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
SECTION: Final = "overhead"
PROMPT_TOKENS: Final = 32
WARM_TOKENS: Final = 8
STREAMS: Final = [1, 16, 64]
ENTRIES: Final = ["neuron", "gateway"]
USUAL_THREADS: Final = len(os.sched_getaffinity(0))
WINDOW_TOKENS: Final = {1: 192, 16: 64}
"""By streams, for each of them; `FEWEST_TOKENS` where there are more."""
FEWEST_TOKENS: Final = 24
QUIET_S: Final = 5.0
FIRST_SEED: Final = 1
DESCRIPTION: Final = """
Processor time of a token at a node and through a gateway, process by process, against what the
bare step takes: the forward pass without the choice of tokens. SmolLM2 on the CPU kernels; the
median of each kind of window counts. --write puts the tables into the docs, unless processes that
are none of these took more than 0.15 core meanwhile.
"""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="cortex-overhead-") as folder:
        tables, cpu = asyncio.run(measure(options, Path(folder)))
    text = f"{circumstances(command(options), told(options), cpu)}\n\n{tables}"
    print(text)
    if options.write:
        write_clean(PAGE, SECTION, text, cpu)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=DESCRIPTION)
    parser.add_argument("--streams", type=positive, nargs="+", default=STREAMS)
    parser.add_argument("--entries", nargs="+", default=ENTRIES, choices=ENTRIES)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--dtype", default="int4", choices=["int4", "int8", "bfloat16"])
    parser.add_argument("--threads", type=positive, default=USUAL_THREADS)
    parser.add_argument(
        "--pace-ms", type=float, help="sleep so long in place of a step: overhead without noise"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    return parser.parse_args(argv)


def command(options: argparse.Namespace) -> str:
    """Return what measures the same again."""
    flags = [f"--rounds {options.rounds}", f"--dtype {options.dtype}"]
    for name, usual in (("streams", STREAMS), ("entries", ENTRIES)):
        if (chosen := getattr(options, name)) != usual:
            flags.append(f"--{name} {' '.join(map(str, chosen))}")
    if options.threads != USUAL_THREADS:
        flags.append(f"--threads {options.threads}")
    if options.pace_ms:
        flags.append(f"--pace-ms {options.pace_ms:g}")
    return f"python -m bench.overhead {' '.join(flags)} --write"


def told(options: argparse.Namespace) -> str:
    """Return what the figures are of."""
    rounds = f"medians of {options.rounds} windows of each kind"
    if options.pace_ms:
        return f"{SMOLLM2}, {options.pace_ms:g} ms of sleep in place of each step, {rounds}"
    return (
        f"{SMOLLM2} in {options.dtype}, {rounds}, by turns, and of as many runs of the step alone"
    )


def step_alone(options: argparse.Namespace, counts: Path) -> dict[int, float]:
    """Return by streams the nanoseconds of a token's share of a step in a process of its own."""
    found = subprocess.run(
        [
            *(sys.executable, "-m", "bench.overhead.alone", options.dtype),
            *map(str, (options.threads, FEWEST_TOKENS, *options.streams)),
        ],
        env={**os.environ, COUNTS_FILE: str(counts)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    return {line["streams"]: line["step_ns"] for line in lines}


async def measure(options: argparse.Namespace, folder: Path) -> tuple[str, CpuUse]:
    """Start everything, measure; return the tables, and by whom the machine was meanwhile.

    Each round begins with the step alone, in a process of its own beside servers that rest.
    """
    prompts = PromptMaker(cached_model(SMOLLM2) / "tokenizer.json", FIRST_SEED)
    with _running(options, folder) as processes:
        targets = {entry: processes.target(entry) for entry in options.entries}
        for target in targets.values():
            await processes.answering(target)
        processes.identify()
        await at_rest(processes.pids)
        meter = CpuMeter(processes.pids)
        before = processes.usage()
        await asyncio.sleep(QUIET_S)
        quiet = quiet_table(used(before, processes.usage()), QUIET_S)
        alone: dict[int, list[float]] = {}
        windows: dict[tuple[str, int], list[Window]] = {}
        for number in range(options.rounds):
            await at_rest(processes.pids)
            found = {} if options.pace_ms else step_alone(options, folder / f"alone-{number}")
            for streams, step_ns in found.items():
                alone.setdefault(streams, []).append(step_ns)
            for streams in options.streams:
                for entry, target in targets.items():
                    window = await _window(processes, target, entry, prompts, streams)
                    windows.setdefault((entry, streams), []).append(window)
                    print(f"round {number + 1}: {entry}, {streams} streams", file=sys.stderr)
        cpu = meter.stop()
    shown = [middle(windows[entry, n]) for entry in targets for n in options.streams]
    steps = {streams: median(found) for streams, found in alone.items()}
    return f"{tokens_table(shown, steps)}\n\n{quiet}", cpu


@contextmanager
def _running(options: argparse.Namespace, folder: Path) -> Iterator[Processes]:
    backend = METERED
    if options.pace_ms:
        backend = PACED
        os.environ[PACE_MS] = str(options.pace_ms)
    with Processes(
        folder,
        str(SMOLLM2),
        backend,
        dtype=options.dtype,
        streams=max(options.streams),
        threads=options.threads,
    ) as processes:
        yield processes


async def _window(
    processes: Processes, target: Target, entry: str, prompts: PromptMaker, streams: int
) -> Window:
    """Look at the processes while all streams decode."""
    texts = [prompts.text(PROMPT_TOKENS) for _ in range(streams)]
    async with RunningStreams(target, texts) as running:
        await running.have(WARM_TOKENS)
        began, usage, before = time.perf_counter(), processes.usage(), processes.counts()
        await running.have_more(WINDOW_TOKENS.get(streams, FEWEST_TOKENS))
        ended, after, counts = time.perf_counter(), processes.usage(), processes.counts()
    made = counts.since(before)
    return Window(
        entry=entry,
        streams=streams,
        tokens=made.tokens,
        wall_s=ended - began,
        step_ns=made.step_ns,
        sampling_ns=made.sampling_ns,
        usage=used(usage, after),
    )


if __name__ == "__main__":
    main()
