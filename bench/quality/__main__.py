"""Compare the formats of weights, keys and values with float32, teacher-forced on real text.

The oracle is the model's plan computed in float32 by torch, which is proven to be the model when
the plan is made. Prints a table; `--write` puts it into docs/benchmarks.md.
"""

import argparse
import os
import sys
from itertools import product
from pathlib import Path
from typing import get_args

import torch

from bench.circumstances import circumstances
from bench.host_step import sequence_logits
from bench.markdown import table, write_section
from bench.named import positive
from bench.quality.compare import Comparison
from bench.quality.oracle import reference_logits
from bench.quality.texts import texts
from bench.quality.windows import windows
from cortex_core.ids import ModelId
from neurond.engine.device import open_device
from neurond.kernels.library import Kernels
from neurond.kernels.memory import KvFormat
from neurond.kernels.packed_file import LAYER_AND_HEAD, WeightFormat
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.loader import load_model
from neurond.models.pack import pack_to_memory
from neurond.models.packed_loader import plan_packing
from tests.fakes.model_cache import GEMMA3, SMOLLM2, real_model

PAGE = Path("docs/benchmarks.md")
SECTION = "quality"
MODELS = [SMOLLM2, GEMMA3]
HEADERS = (
    "model",
    "weights",
    "keys and values",
    "same greedy token, %",
    "perplexity, by float32",
    "KL divergence, nats",
    "RMS logit error, %",
)


def main() -> int:
    """Compare all formats of all models."""
    options = _arguments()
    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        sys.exit(f"cannot compare weight formats: there are no CPU kernels ({kernels.reason})")
    rows = []
    for model_id in options.models:
        rows += _rows(ModelId(model_id), kernels, options.length, options.windows)
    shown = f"{circumstances_of(options, kernels.variant)}\n\n{table(HEADERS, rows)}"
    print(shown)
    if options.write:
        write_section(PAGE, SECTION, shown)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="ID")
    parser.add_argument("--length", type=positive, default=512, help="tokens of a sequence")
    parser.add_argument("--windows", type=positive, default=11, help="sequences")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE}")
    return parser.parse_args()


def _rows(model_id: ModelId, kernels: Kernels, length: int, count: int) -> list[list[str]]:
    threads = len(os.sched_getaffinity(0))
    folder, manifest = real_model(model_id)
    sequences = windows(folder, manifest, texts(), length, count)
    loaded = load_model(
        folder, manifest, "float32", open_device("cpu", threads, None), lambda _: None
    )
    plan = plan_packing(loaded)
    if not isinstance(plan, DecoderPlan):
        sys.exit(f"cannot compare weight formats of {model_id}: {plan.reason}")
    found = compare_formats(plan, manifest.weights_hash, kernels, threads, sequences)
    perplexity = f"perplexity {found['bf16', 'bf16'].oracle_perplexity:.2f}"
    return [
        [model_id, f"float32, the oracle: {perplexity}", "float32", "100", "1", "0", "0"],
        *[[model_id, *names, *_cells(comparison)] for names, comparison in found.items()],
    ]


def compare_formats(
    plan: DecoderPlan,
    weights_hash: str,
    kernels: Kernels,
    threads: int,
    sequences: list[list[int]],
) -> dict[tuple[WeightFormat, KvFormat], Comparison]:
    """Return a comparison for each format of weights, and of keys and values.

    One sequence's logits are in memory at a time.
    """
    packed = {
        name: pack_to_memory(plan, weights_hash, name, kernels, lambda _: None)
        for name in LAYER_AND_HEAD
    }
    formats = list(product(packed, get_args(KvFormat)))
    found = {names: Comparison() for names in formats}
    with torch.inference_mode(), kernels.pool(threads) as pool:
        for sequence in sequences:
            token_ids = torch.tensor(sequence)
            oracle = reference_logits(plan, token_ids)
            for name, kv in formats:
                logits = sequence_logits(kernels, pool, packed[name], sequence, kv)
                found[name, kv].add(torch.from_numpy(logits), oracle, token_ids)
    return found


def _cells(comparison: Comparison) -> list[str]:
    return [
        f"{100 * comparison.same_share:.1f}",
        f"{comparison.perplexity_ratio:.4f}",
        f"{comparison.mean_divergence:.4f}",
        f"{100 * comparison.logit_error:.1f}",
    ]


def circumstances_of(options: argparse.Namespace, variant: str) -> str:
    """Return what the table says of itself."""
    names = ", ".join(texts())
    told = (
        f"variant {variant}, {options.windows} sequences of {options.length} tokens from "
        f"{names}, each token predicted from the true ones before it"
    )
    return circumstances(command(options), told)


def command(options: argparse.Namespace) -> str:
    """Return what makes the same table again."""
    models = f" --models {' '.join(options.models)}" if options.models != MODELS else ""
    numbers = f"--length {options.length} --windows {options.windows}"
    return f"python -m bench.quality{models} {numbers} --write"


if __name__ == "__main__":
    sys.exit(main())
