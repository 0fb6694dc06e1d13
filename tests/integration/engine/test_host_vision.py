"""Images with the CPU kernels: near transformers', and the same bits however they are cut."""

import copy
from collections.abc import Iterator

import pytest
import torch

from cortex_core.canonical import SamplingParams
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.engine.host_runner import HostRunner
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import Kernels
from neurond.kernels.memory import KvFormat
from neurond.kernels.packed_model import PackedModel
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models.decoder_plan import DecoderPlan, NoPlan
from neurond.models.pack import pack_to_memory
from neurond.models.packed_loader import plan_packing
from neurond.models.tower import load_tower
from tests.fakes.engine_runs import EngineUnderTest
from tests.fakes.tiny_vision import TINY_VISION
from tests.fakes.vision_pairs import Prompt, VisionPair, load_pair, words

TOLD = SamplingParams(temperature=0.8, top_p=0.9, logprobs=3, ignore_eos=True)
NEW_TOKENS = 10
PLANNED = ("gemma3", "llava", "smolvlm", "idefics3")
CLOSE: dict[KvFormat, float] = {"bf16": 0.05, "int8": 0.08}
"""Error by what tokens differ in, both root mean square."""


@pytest.fixture(scope="module", params=["best", "portable"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    found = load_kernels(None if request.param == "best" else request.param)
    assert not isinstance(found, NoKernels), found.reason
    return found


@pytest.fixture(scope="module")
def pairs(cpu, tmp_path_factory) -> dict[str, VisionPair]:
    root = tmp_path_factory.mktemp("host-vision")
    return {name: load_pair(root / name, TINY_VISION[name](root / name), cpu) for name in PLANNED}


class Packed:
    """A model that the kernels compute, and its tower; engines have pools of their own."""

    def __init__(
        self, kernels: Kernels, pair: VisionPair, kv_format: KvFormat, dtype: str = "float32"
    ) -> None:
        plan = plan_packing(pair.loaded)
        assert isinstance(plan, DecoderPlan), plan.reason
        assert plan.two_way_tokens is not None
        self.pair = pair
        self.model: PackedModel = pack_to_memory(
            plan, "0123456789abcdef", "bf16", kernels, lambda _: None
        )
        loaded = pair.loaded
        self.vision = load_tower(
            pair.folder, loaded.manifest, dtype, loaded.device, plan.two_way_tokens, lambda _: None
        )
        self._kernels = kernels
        self.kv_format: KvFormat = kv_format
        self._pools = {threads: kernels.pool(threads) for threads in (1, 2)}

    def runner(self, *, num_blocks: int, step_tokens: int, threads: int) -> HostRunner:
        return HostRunner(
            self._kernels,
            self._pools[threads],
            self.model,
            self._kernels.kv_pages(self.model.struct, num_blocks, self.kv_format),
            max_tokens=step_tokens,
            max_sequences=8,
            max_rows=16,
            vision=self.vision,
        )

    def engine(
        self,
        *,
        num_blocks: int = 128,
        step_tokens: int = 256,
        threads: int = 1,
        max_draft_rows: int = 0,
    ) -> EngineUnderTest:
        runner = self.runner(num_blocks=num_blocks, step_tokens=step_tokens, threads=threads)
        config = SchedulerConfig(
            num_blocks=num_blocks,
            context_tokens=512,
            block_tokens=BLOCK_TOKENS,
            max_sequences=8,
            step_tokens=step_tokens,
            max_draft_rows=max_draft_rows,
            two_way_tokens=self.vision.two_way_tokens,
        )
        return EngineUnderTest(Engine(runner, config))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(params=[(name, "bf16") for name in PLANNED] + [("gemma3", "int8")], ids=str)
def packed(request, kernels, pairs) -> Iterator[Packed]:
    name, kv_format = request.param
    made = Packed(kernels, pairs[name], kv_format)
    yield made
    made.close()


def prompts(pair: VisionPair) -> list[Prompt]:
    """Images that begin and end within blocks, at their borders, and one behind another."""
    return [
        pair.prompt(0, words(1, 9)),
        pair.prompt(words(2, 17), 1, words(3, 5)),
        pair.prompt(words(5, 3), 0, words(6, 2), 3, words(7, 4)),
        pair.prompt(words(10, 30)),
        pair.prompt(words(4, 40), 2, words(12, 1)),
    ]


def run(engine: EngineUnderTest, asked: list[Prompt]) -> list[list[object]]:
    streams = [
        engine.submit(p.token_ids, NEW_TOKENS, TOLD, seed=seed, images=p.images)
        for seed, p in enumerate(asked)
    ]
    tokens = engine.finish()
    return [list(tokens[stream]) for stream in streams]


def told_of(packed: Packed, prompt: Prompt) -> dict[int, float]:
    """Return the kernels' log probabilities of the likeliest tokens behind a prompt."""
    engine = packed.engine(threads=2)
    asked = SamplingParams(temperature=0.0, logprobs=20)
    stream = engine.submit(prompt.token_ids, 1, asked, images=prompt.images)
    (token,) = engine.finish()[stream]
    return dict(token.top)


def rounded(pair: VisionPair) -> VisionPair:
    """Return transformers' model with the weights that the kernels have."""
    reference = copy.deepcopy(pair.reference)
    for part in (reference.get_decoder(), reference.get_output_embeddings()):
        for parameter in part.parameters():
            parameter.data = parameter.data.bfloat16().float()
    return VisionPair(reference, pair.loaded, pair.processor, pair.folder, pair.encode)


def error_of(told: dict[int, float], expected: torch.Tensor) -> float:
    """Return by how much they differ, by how much tokens do."""
    found = torch.tensor(list(told.values()))
    difference = found - expected[list(told)]
    return float(difference.square().mean().sqrt() / expected.std())


def test_logprobs_are_near_those_of_transformers(packed: Packed) -> None:
    reference = rounded(packed.pair)
    near, causal = [], []
    for prompt in prompts(packed.pair):
        told = told_of(packed, prompt)
        near.append(error_of(told, reference.logprobs(prompt)))
        if packed.vision.two_way_tokens and prompt.images is not None:
            causal.append(error_of(told, reference.logprobs(prompt, causal=True)))
    assert max(near) < CLOSE[packed.kv_format]
    if packed.vision.two_way_tokens:
        assert max(causal) > 2 * max(near), "causal would do as well"


def test_bits_do_not_depend_on_company_chunks_threads_or_cache(packed: Packed) -> None:
    asked = prompts(packed.pair)
    alone = [run(packed.engine(), [prompt])[0] for prompt in asked[:1]]
    together = run(packed.engine(threads=2), asked)
    least = 8 + max(packed.vision.two_way_tokens, 1)
    assert alone == together[:1]
    assert run(packed.engine(step_tokens=least), asked) == together
    assert run(packed.engine(num_blocks=14, threads=2), asked) == together
    cached = packed.engine()
    assert run(cached, asked) == together
    assert run(cached, asked) == together
    assert sum(cached.cached_tokens[len(asked) :]) > 0


def test_a_tower_in_bfloat16_sees_the_same(kernels: Kernels, pairs) -> None:
    made = [Packed(kernels, pairs["gemma3"], "bf16", dtype) for dtype in ("float32", "bfloat16")]
    image = prompts(pairs["gemma3"])[0].images.images[0]
    exact, narrow = (packed.vision.features(image).float() for packed in made)
    assert 0 < (exact - narrow).abs().max() < 0.05 * exact.abs().max()
    assert made[1].vision.weights_bytes == made[0].vision.weights_bytes / 2
    for packed in made:
        assert len(run(packed.engine(), prompts(pairs["gemma3"])[:1])[0]) == NEW_TOKENS
        packed.close()


def test_drafts_change_nothing(packed: Packed) -> None:
    prompt = prompts(packed.pair)[1]
    few = SamplingParams(temperature=0.0, logit_bias={40: 30.0, 41: 30.0}, ignore_eos=True)
    plain, drafting = packed.engine(), packed.engine(max_draft_rows=12)
    for engine in (plain, drafting):
        engine.submit(prompt.token_ids, 40, few, images=prompt.images)
    assert plain.finish() == drafting.finish()
    assert drafting.engine.scheduler.num_accepted_tokens > 0


def test_what_images_do_elsewhere_has_no_plan(cpu, tmp_path) -> None:
    for name in ("qwen2.5-vl", "qwen3-vl"):
        pair = load_pair(tmp_path / name, TINY_VISION[name](tmp_path / name), cpu)
        assert not pair.processor.tokens.in_place
        assert plan_packing(pair.loaded) == NoPlan("its images change more than embeddings")
