"""One stream on the CPU kernels beside what reading the weights once for each token allows.

    python -m bench.bound [bf16|int8|int4] [--model ID] [--rounds N] [--write]

Reading and decoding take turns, so that neighbours of a shared machine disturb both alike: as many
seconds each, means of them, since what memory gives for some milliseconds now and then bounds
nothing that takes longer. As many bytes are read as the weights have that a token needs, in the
fastest of some ways, see `bench.ceilings`; decoding is W1's, 64 tokens in and 128 out without
drafts, in this process and without HTTP. --write puts the table into
docs/benchmarks.md, unless other processes took more than 0.15 core meanwhile.
"""

import argparse
import sys
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
from bench.serve.machine import CpuMeter, CpuUse
from cortex_core.ids import ModelId
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
HEADS: Final = ("", "reads, GB/s", "at most, tokens/s", "decodes, tokens/s", "of the bound")


@dataclass(frozen=True)
class Round:
    """What was read in a second, and what was decoded right after it."""

    read_gb_per_s: float
    tokens_per_s: float

    def row(self, name: str, num_bytes: int) -> list[str]:
        """Return the row of that name, for weights of so many bytes, see `HEADS`."""
        bound = self.read_gb_per_s * 1e9 / num_bytes
        share = self.tokens_per_s / bound
        decodes = f"{self.tokens_per_s:.1f}"
        return [name, f"{self.read_gb_per_s:.1f}", f"{bound:.1f}", decodes, f"{share:.0%}"]


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
    engine = engine_of(
        serve(
            options.model,
            "bfloat16" if options.format == "bf16" else options.format,
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
    reading = Reading(num_bytes)
    decode(engine)
    meter = CpuMeter([])
    rounds = []
    for number in range(options.rounds):
        decoded = decode(engine)
        rounds.append(Round(reading.mean_gb_per_s(MAX_TOKENS / decoded), decoded))
        print(rounds[-1].row(f"round {number + 1}", num_bytes), file=sys.stderr)
    used = meter.stop()
    text = f"{_circumstances(options, num_bytes, used)}\n\n{told(rounds, num_bytes)}"
    print(text)
    if options.write:
        write_clean(PAGE, SECTION, text, used)


def told(rounds: Sequence[Round], num_bytes: int) -> str:
    """Return the table: medians, each of its own column, and the best of each."""
    reads, decodes = [r.read_gb_per_s for r in rounds], [r.tokens_per_s for r in rounds]
    kinds = {
        "medians": Round(median(reads), median(decodes)),
        "best": Round(max(reads), max(decodes)),
    }
    return table(HEADS, [found.row(name, num_bytes) for name, found in kinds.items()])


def _circumstances(options: argparse.Namespace, num_bytes: int, used: CpuUse) -> str:
    model = "" if options.model == SMOLLM2 else f" --model {options.model}"
    command = f"python -m bench.bound {options.format}{model} --rounds {options.rounds} --write"
    told = (
        f"{options.model} in {options.format}, {num_bytes / 1e6:.1f} MB of weights for a token, "
        f"{options.rounds} rounds in which reading and W1's decode in process take turns"
    )
    return circumstances(command, told, used)


if __name__ == "__main__":
    main()
