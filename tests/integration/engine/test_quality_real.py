"""What a real model loses to the kernels and their weights, teacher-forced on real prose and code.

`python -m bench.quality` measures the same over more text; this holds it, so that a kernel that
computes nearly right is no quiet loss.
"""

import pytest
import torch

from bench.host_step import sequence_logits
from bench.quality.compare import Comparison
from bench.quality.oracle import reference_logits
from bench.quality.texts import texts
from bench.quality.windows import windows
from neurond.kernels.packed_file import WeightFormat
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.loader import load_model
from neurond.models.pack import pack_to_memory
from neurond.models.packed_loader import plan_packing
from tests.fakes.model_cache import SMOLLM2, real_model

pytestmark = pytest.mark.model

LENGTH, COUNT = 256, 20
LEAST_SAME: dict[WeightFormat, float] = {"bf16": 0.986, "int8": 0.963, "int4": 0.965}
"""Positions with float32's own greedy token: 99, 97 and 96.5 % are due. Found are 98.9 to 99.1,
97.1 to 97.8 and 98.2 to 98.5 % of these 5,100, by AMX, AVX-512 and AVX2. The first two are so near
to what is due that they are left three standard errors, of 0.14 and 0.24 %: the texts are not the
same in each release of Python, nor the rounding in each variant. int4, which the model's own files
have, needs none.
"""
MOST_PERPLEXITY = 1.02
"""By that of float32."""


def test_the_greedy_token_is_that_of_float32(cpu) -> None:
    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        pytest.skip(kernels.reason)
    folder, manifest = real_model(SMOLLM2)
    plan = plan_packing(load_model(folder, manifest, "float32", cpu, lambda _: None))
    assert isinstance(plan, DecoderPlan)
    sequences = windows(folder, manifest, texts(), LENGTH, COUNT)
    with torch.inference_mode():
        oracles = [reference_logits(plan, torch.tensor(each)) for each in sequences]
    found = {name: Comparison() for name in LEAST_SAME}
    with kernels.pool(2) as pool:
        for name, comparison in found.items():
            packed = pack_to_memory(plan, manifest.weights_hash, name, kernels, lambda _: None)
            for sequence, oracle in zip(sequences, oracles, strict=True):
                logits = sequence_logits(kernels, pool, packed, sequence)
                comparison.add(torch.from_numpy(logits), oracle, torch.tensor(sequence))
    assert {each.positions for each in found.values()} == {COUNT * (LENGTH - 1)}
    same = {name: each.same_share for name, each in found.items()}
    perplexities = {name: each.perplexity_ratio for name, each in found.items()}
    assert {name for name, share in same.items() if share < LEAST_SAME[name]} == set(), same
    assert max(perplexities.values()) < MOST_PERPLEXITY, perplexities
