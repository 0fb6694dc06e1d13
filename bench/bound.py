"""One stream on the CPU kernels beside what reading the weights once for each token allows.

    python -m bench.bound [bf16|int8|int4] [--model ID] [--rounds N] [--write]

Reading and decoding take turns, so that neighbours of a shared machine disturb both alike: as many
seconds each, means of them, since what memory gives for some milliseconds now and then bounds
nothing that takes longer. As many bytes are read as the weights have that a token needs, in the
fastest of some ways, see `bench.ceilings`; decoding is W1's, 64 tokens in and 128 out without
drafts, in this process without HTTP, at a node, and through a gateway. --write puts the table into
docs/benchmarks.md, unless other processes took more than 0.15 core meanwhile.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, get_args

from bench.ceilings.measure import Reading, compiled
from bench.circumstances import circumstances, write_clean
from bench.host_engine import add, engine_of, serve
from bench.markdown import table
from bench.named import positive
from bench.overhead.processes import Processes
from bench.serve.machine import CpuMeter, CpuUse, at_rest
from bench.serve.prompts import PromptMaker
from bench.serve.target import Target
from cortex_core.ids import ModelId
from cortex_core.neuron_api import Dtype
from neurond.engine.engine import Engine
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import PackedDecoder, WeightFormat, packed_path
from neurond.kernels.packed_model import open_packed
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.sources.prepared import read_manifest
from tests.fakes.model_cache import SMOLLM2, cached_model

PROMPT_TOKENS, MAX_TOKENS = 64, 128
PAGE: Final = Path("docs/benchmarks.md")
SECTION: Final = "bound"
ENTRIES: Final = ("neuron", "gateway")
HEADS: Final = (
    *("", "reads, GB/s", "at most, tokens/s", "engine decodes, tokens/s", "of it"),
    *("at the node", "of it", "through the gateway", "of it"),
)
BACKEND: Final = "neurond.actor.cpu_backend:CpuBackend"
FIRST_SEED: Final = 1


@dataclass(frozen=True)
class Round:
    """What was read in a second, and what was decoded right after it: by the engine in process, at
    the node, through the gateway."""

    read_gb_per_s: float
    tokens_per_s: tuple[float, ...]

    def row(self, name: str, num_bytes: int) -> list[str]:
        """Return the row of that name, for weights of so many bytes, see `HEADS`."""
        bound = self.read_gb_per_s * 1e9 / num_bytes
        cells = [name, f"{self.read_gb_per_s:.1f}", f"{bound:.1f}"]
        for decoded in self.tokens_per_s:
            cells += [f"{decoded:.1f}", f"{decoded / bound:.0%}"]
        return cells


def weight_bytes(decoder: PackedDecoder, kernels: Kernels) -> int:
    """Return the bytes of all matrices that a token is multiplied with."""
    layers = decoder.layers
    matrices = [m for layer in layers for m in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    return sum(
        kernels.packed_bytes(m.weight_format, m.out_features, m.in_features)
        for m in (*matrices, decoder.head)
    )


def decode(engine: Engine) -> float:
    """Return one stream's tokens per second, from its first token to its last."""
    add(engine, PROMPT_TOKENS, MAX_TOKENS)
    while not engine.step().tokens:
        pass
    began = time.perf_counter()
    while engine.has_work():
        engine.step()
    return (MAX_TOKENS - 1) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.bound", description=__doc__.splitlines()[0])
    parser.add_argument("format", nargs="?", choices=get_args(WeightFormat), default="bf16")
    parser.add_argument("--model", type=ModelId, default=SMOLLM2, help="as in `neuron pull`")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE}")
    options = parser.parse_args()
    try:
        compiled()
    except OSError as ex:
        sys.exit(f"cannot measure how fast memory is read: {ex}")
    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        sys.exit(f"cannot measure the CPU kernels: {kernels.reason}")
    dtype: Dtype = "bfloat16" if options.format == "bf16" else options.format
    engine = engine_of(
        serve(
            options.model,
            dtype,
            context_tokens=1024,
            max_sequences=1,
            kv_cache_bytes=1 << 27,
        )
    )
    folder = cached_model(options.model)
    weights_hash = read_manifest(folder).weights_hash
    path = packed_path(folder, weights_hash, options.format, kernels.layout)
    packed = open_packed(path, kernels, weights_hash, options.format)
    if packed is None:
        sys.exit(f"cannot read {path}: the CPU kernels do not serve {options.model}")
    num_bytes = weight_bytes(packed.decoder, kernels)
    del packed
    with tempfile.TemporaryDirectory(prefix="cortex-bound-") as served:
        rounds, used = asyncio.run(_measure(options, dtype, engine, num_bytes, Path(served)))
    text = f"{_circumstances(options, num_bytes, used)}\n\n{told(rounds, num_bytes)}"
    print(text)
    if options.write:
        write_clean(PAGE, SECTION, text, used)


async def _measure(
    options: argparse.Namespace, dtype: str, engine: Engine, num_bytes: int, folder: Path
) -> tuple[list[Round], CpuUse]:
    """Return the rounds, and by whom the machine was used meanwhile."""
    threads = len(os.sched_getaffinity(0))
    prompts = PromptMaker(cached_model(options.model) / "tokenizer.json", FIRST_SEED)
    reading = Reading(num_bytes)
    rounds = []
    with Processes(
        folder, str(options.model), BACKEND, dtype=dtype, streams=1, threads=threads
    ) as processes:
        targets = [processes.target(entry) for entry in ENTRIES]
        for target in targets:
            await processes.answering(target)
        decode(engine)
        await at_rest(processes.pids)
        meter = CpuMeter(processes.pids)
        for number in range(options.rounds):
            decoded = decode(engine)
            read = reading.mean_gb_per_s(MAX_TOKENS / decoded)
            served = [await _served(target, prompts) for target in targets]
            rounds.append(Round(read, (decoded, *served)))
            print(rounds[-1].row(f"round {number + 1}", num_bytes), file=sys.stderr)
        return rounds, meter.stop()


async def _served(target: Target, prompts: PromptMaker) -> float:
    """Return the tokens per second of one stream, from its first token to its last."""
    answer = await target.complete(prompts.text(PROMPT_TOKENS), MAX_TOKENS)
    if answer.error is not None or answer.decode_tokens_per_s is None:
        sys.exit(f"cannot measure {target.url}: {answer.error or 'no tokens came'}")
    await at_rest(target.pids)
    return answer.decode_tokens_per_s


def told(rounds: Sequence[Round], num_bytes: int) -> str:
    """Return the table: medians, each of its own column, and the best of each."""
    reads = [r.read_gb_per_s for r in rounds]
    decodes = list(zip(*(r.tokens_per_s for r in rounds), strict=True))
    kinds = {
        "medians": Round(median(reads), tuple(map(median, decodes))),
        "best": Round(max(reads), tuple(map(max, decodes))),
    }
    return table(HEADS, [found.row(name, num_bytes) for name, found in kinds.items()])


def _circumstances(options: argparse.Namespace, num_bytes: int, used: CpuUse) -> str:
    model = "" if options.model == SMOLLM2 else f" --model {options.model}"
    command = f"python -m bench.bound {options.format}{model} --rounds {options.rounds} --write"
    told = (
        f"{options.model} in {options.format}, {num_bytes / 1e6:.1f} MB of weights for a token, "
        f"{options.rounds} rounds in which reading and W1's decode take turns, in process, at a "
        "node and through a gateway"
    )
    return circumstances(command, told, used)


if __name__ == "__main__":
    main()
