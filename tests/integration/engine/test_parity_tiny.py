"""Tokens are those of transformers, whatever is batched, cut, cached, preempted or replayed."""

import random

import pytest
import torch

from cortex_core.canonical import SamplingParams
from tests.fakes.engine_runs import GREEDY, SAMPLED, ids, make_engine
from tests.fakes.tiny_models import TINY_CONFIGS, VOCAB_SIZE

ALL = pytest.mark.parametrize("name", TINY_CONFIGS)
MAX_TOKENS = 16
FEW = {40: 30.0, 41: 30.0}  # so few tokens that those of before come again
COPYING = {
    "greedy": SamplingParams(temperature=0.0, logit_bias=FEW, ignore_eos=True),
    "sampled": SamplingParams(temperature=0.5, logit_bias=FEW, ignore_eos=True),
}


def prompt_of(length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(VOCAB_SIZE), k=length)


PROMPTS = [prompt_of(length, seed) for seed, length in enumerate((23, 1, 9, 40, 16, 31))]


@ALL
def test_one_request_is_what_transformers_generates(tiny, name):
    pair = tiny(name)
    out = make_engine(pair.loaded).generate(PROMPTS[0], MAX_TOKENS)
    assert out == pair.generate(PROMPTS[0], MAX_TOKENS)


@ALL
@torch.inference_mode()
def test_a_prompt_is_scored_as_transformers_does_it(tiny, name):
    pair = tiny(name)
    prompt = PROMPTS[0]
    logits = pair.reference(torch.tensor([prompt])).logits[0].float()
    expected = logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0]
    asked = SamplingParams(temperature=0.0, logprobs=2, scores_prompt=True)
    for max_rows in (0, 64):
        engine = make_engine(pair.loaded, max_rows=max_rows, step_tokens=24)
        stream = engine.submit(prompt, 1, asked)
        engine.finish()
        scores = engine.scores[stream]
        assert ids(scores) == prompt[1:]
        told = torch.tensor([score.logprob for score in scores])
        torch.testing.assert_close(told, expected, atol=2e-4, rtol=1e-3)
        likeliest = [score.top[0][0] for score in scores]
        assert likeliest == logits[:-1].argmax(-1).tolist()


@ALL
def test_requests_do_not_touch_each_other(tiny, name):
    pair = tiny(name)
    engine = make_engine(pair.loaded)
    streams = [engine.submit(prompt, MAX_TOKENS) for prompt in PROMPTS]
    tokens = engine.finish()
    for stream, prompt in zip(streams, PROMPTS, strict=True):
        assert ids(tokens[stream]) == pair.generate(prompt, MAX_TOKENS)


@ALL
def test_prompts_in_chunks_between_decodes(tiny, name):
    pair = tiny(name)
    engine = make_engine(pair.loaded, max_sequences=6, step_tokens=7)
    streams = [engine.submit(prompt, MAX_TOKENS) for prompt in PROMPTS]
    tokens = engine.finish()
    for stream, prompt in zip(streams, PROMPTS, strict=True):
        assert ids(tokens[stream]) == pair.generate(prompt, MAX_TOKENS)


@ALL
def test_a_cached_prefix_changes_nothing(tiny, name):
    pair = tiny(name)
    engine = make_engine(pair.loaded)
    shared = PROMPTS[3]
    longer = shared + prompt_of(5, 99)
    first = engine.generate(shared, MAX_TOKENS)
    again = engine.generate(shared, MAX_TOKENS)
    other = engine.generate(longer, MAX_TOKENS)
    assert engine.cached_tokens[0] == 0
    assert all(cached >= 32 for cached in engine.cached_tokens[1:])
    assert first == again == pair.generate(shared, MAX_TOKENS)
    assert other == pair.generate(longer, MAX_TOKENS)


@ALL
def test_preemption_changes_nothing(tiny, name):
    pair = tiny(name)
    prompts = PROMPTS[2:5]
    engine = make_engine(pair.loaded, num_blocks=17, block_tokens=4, max_sequences=3)
    streams = [engine.submit(prompt, 24) for prompt in prompts]
    tokens = engine.finish()
    assert engine.engine.scheduler.num_preemptions > 0
    for stream, prompt in zip(streams, prompts, strict=True):
        assert ids(tokens[stream]) == pair.generate(prompt, 24)


@ALL
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_replayed_output_goes_on_as_if_uninterrupted(tiny, name, sampling):
    loaded = tiny(name).loaded
    whole = make_engine(loaded).generate(PROMPTS[0], MAX_TOKENS, sampling)
    for done in (1, 7, MAX_TOKENS - 1):
        rest = make_engine(loaded).generate(
            PROMPTS[0], MAX_TOKENS - done, sampling, replayed=whole[:done]
        )
        assert whole[:done] + rest == whole


@ALL
def test_a_seed_gives_the_same_tokens_at_any_load(tiny, name):
    loaded = tiny(name).loaded
    alone = make_engine(loaded).generate(PROMPTS[0], MAX_TOKENS, SAMPLED, seed=11)
    crowd = make_engine(loaded, max_sequences=6, step_tokens=9)
    for seed, prompt in enumerate(PROMPTS[1:]):
        crowd.submit(prompt, MAX_TOKENS, SAMPLED, seed=seed)
    stream = crowd.submit(PROMPTS[0], MAX_TOKENS, SAMPLED, seed=11)
    assert ids(crowd.finish()[stream]) == alone
    other = make_engine(loaded).generate(PROMPTS[0], MAX_TOKENS, SAMPLED, seed=12)
    assert other != alone


@ALL
@pytest.mark.parametrize("sampling", COPYING.values(), ids=COPYING)
def test_drafts_change_nothing(tiny, name, sampling):
    loaded = tiny(name).loaded
    prompts = PROMPTS[:3]
    accepted = 0
    for together in ([prompts[0]], prompts):
        plain, drafting = make_engine(loaded), make_engine(loaded, max_draft_rows=12)
        for engine in (plain, drafting):
            for prompt in together:
                engine.submit(prompt + prompt[:9], 40, sampling)
        assert plain.finish() == drafting.finish()
        accepted += drafting.engine.scheduler.num_accepted_tokens
    assert accepted > 0
