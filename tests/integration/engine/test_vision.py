"""Prompts with images: tokens are those of transformers, whatever is batched, cut or cached."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cortex_core.canonical import SamplingParams
from cortex_core.errors import InvalidRequest
from neurond.engine.images import place_images
from neurond.images.decoding import decode_image
from neurond.models.loader import load_model
from tests.fakes.engine_runs import SAMPLED, ids, make_engine
from tests.fakes.tiny_vision import TINY_VISION
from tests.fakes.vision_pairs import MAX_TOKENS, Prompt, VisionPair, load_pair, picture, words

ALL = pytest.mark.parametrize("name", TINY_VISION)


@pytest.fixture(scope="session")
def vision(cpu, tmp_path_factory) -> Callable[[str], VisionPair]:
    """Tiny models by name, each made once."""
    pairs: dict[str, VisionPair] = {}

    def pair(name: str) -> VisionPair:
        if name not in pairs:
            folder = tmp_path_factory.mktemp("vision") / name
            pairs[name] = load_pair(folder, TINY_VISION[name](folder), cpu)
        return pairs[name]

    return pair


def prompts(pair: VisionPair) -> list[Prompt]:
    """One image first, in the middle, late; two images; one image twice; text alone.

    Some token is behind each image, as in every chat template: transformers' `generate` gives what
    follows an image at once other positions than its own `get_rope_index` does.
    """
    return [
        pair.prompt(0, words(1, 9)),
        pair.prompt(words(2, 17), 1, words(3, 5)),
        pair.prompt(words(4, 8), 2, words(12, 1)),
        pair.prompt(words(5, 3), 0, words(6, 2), 3, words(7, 4)),
        pair.prompt(words(8, 3), 1, words(11, 1), 1, words(9, 4)),
        pair.prompt(words(10, 30)),
    ]


@ALL
def test_one_request_is_what_transformers_generates(vision, name):
    pair = vision(name)
    for prompt in prompts(pair):
        engine = make_engine(pair.loaded)
        stream = engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images)
        assert ids(engine.finish()[stream]) == pair.generate(prompt)


@ALL
@pytest.mark.parametrize("step_tokens", [7, 64, 512])
def test_requests_with_and_without_images_share_steps(vision, name, step_tokens):
    pair = vision(name)
    least = 7 + pair.loaded.vision.two_way_tokens
    engine = make_engine(pair.loaded, max_sequences=7, step_tokens=max(step_tokens, least))
    asked = prompts(pair)
    streams = [engine.submit(p.token_ids, MAX_TOKENS, images=p.images) for p in asked]
    tokens = engine.finish()
    for stream, prompt in zip(streams, asked, strict=True):
        assert ids(tokens[stream]) == pair.generate(prompt)


@ALL
def test_the_same_image_is_cached_and_another_is_not(vision, name):
    pair = vision(name)
    engine = make_engine(pair.loaded)
    start = words(2, 6)
    first = pair.prompt(start, 3, words(3, 5))
    longer = pair.prompt(start, 3, words(3, 5), 1, words(4, 5))
    for prompt in (first, first, longer):
        stream = engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images)
        assert ids(engine.finish()[stream]) == pair.generate(prompt)
    whole_blocks = len(first.token_ids) // 8 * 8
    assert engine.cached_tokens == [0, (len(first.token_ids) - 1) // 8 * 8, whole_blocks]

    other = place_images(
        first.token_ids,
        pair.processor.tokens.token_id,
        [
            (b"another image of the same size..", len(image.places), inverted(image.inputs))
            for image in first.images.images
        ],
    )
    stream = engine.submit(first.token_ids, MAX_TOKENS, images=other)
    seen = ids(engine.finish()[stream])
    assert engine.cached_tokens[-1] <= first.images.images[0].start
    assert seen != pair.generate(first)


def inverted(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return inputs | {"pixel_values": -inputs["pixel_values"]}


@ALL
def test_preemption_changes_nothing(vision, name):
    pair = vision(name)
    asked = [pair.prompt(words(20 + n, 4), n, words(30 + n, 3)) for n in (0, 1, 2)]
    most = max(len(prompt.token_ids) for prompt in asked)
    engine = make_engine(
        pair.loaded, num_blocks=(most + 30) // 4 + 3, block_tokens=4, max_sequences=3
    )
    streams = [engine.submit(p.token_ids, 24, images=p.images) for p in asked]
    tokens = engine.finish()
    assert engine.engine.scheduler.num_preemptions > 0
    for stream, prompt in zip(streams, asked, strict=True):
        assert ids(tokens[stream]) == pair.generate(prompt, 24)


@ALL
def test_choices_share_a_prompt_with_images(vision, name):
    pair = vision(name)
    prompt = pair.prompt(words(2, 6), 0, words(3, 5))
    engine = make_engine(pair.loaded)
    stream = engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images, n=3)
    tokens = engine.finish()
    for choice in range(3):
        assert ids(tokens[stream + choice]) == pair.generate(prompt)


@ALL
def test_towers_run_in_bfloat16(vision, cpu, name):
    pair = vision(name)
    manifest = pair.loaded.manifest
    narrow = load_model(pair.folder, manifest, "bfloat16", cpu, lambda progress: None)
    prompt = pair.prompt(words(2, 6), 0, words(3, 5))
    engine = make_engine(narrow)
    stream = engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images)
    assert len(engine.finish()[stream]) == MAX_TOKENS


@ALL
def test_drafts_change_nothing(vision, name):
    pair = vision(name)
    prompt = pair.prompt(words(2, 6), 0, words(3, 5))
    few = SamplingParams(temperature=0.0, logit_bias={40: 30.0, 41: 30.0}, ignore_eos=True)
    plain, drafting = make_engine(pair.loaded), make_engine(pair.loaded, max_draft_rows=12)
    for engine in (plain, drafting):
        engine.submit(prompt.token_ids, 40, few, images=prompt.images)
    assert plain.finish() == drafting.finish()
    assert drafting.engine.scheduler.num_accepted_tokens > 0


@ALL
def test_replayed_output_goes_on_as_if_uninterrupted(vision, name):
    pair = vision(name)
    prompt = pair.prompt(words(2, 6), 0, words(3, 5), 1, words(4, 2))

    def run(max_tokens: int, replayed: Sequence[int]) -> list[int]:
        engine = make_engine(pair.loaded)
        stream = engine.submit(
            prompt.token_ids, max_tokens, SAMPLED, replayed=replayed, images=prompt.images
        )
        return ids(engine.finish()[stream])

    whole = run(MAX_TOKENS, ())
    for done in (1, 7, MAX_TOKENS - 1):
        assert whole[:done] + run(MAX_TOKENS - done, whole[:done]) == whole


def test_an_image_that_cannot_be_computed_fails_its_request_alone(vision):
    pair = vision("qwen2.5-vl")
    good = pair.prompt(words(2, 6), 0, words(3, 5))
    bad = place_images(
        good.token_ids,
        pair.processor.tokens.token_id,
        [(b"x" * 32, len(good.images.images[0].places), pair.processor.process(picture(3)).inputs)],
    )
    engine = make_engine(pair.loaded)
    streams = [engine.submit(good.token_ids, 4, images=images) for images in (good.images, bad)]
    failed, tokens = [], []
    while engine.engine.has_work():
        output = engine.engine.step()
        failed += [(request_id, error.code) for request_id, error in output.failed]
        tokens += [token.token_id for stream, token, _ in output.tokens if stream == streams[0]]
    assert failed == [(f"request-{streams[1]}", "internal_error")]
    assert tokens == pair.generate(good, 4)
    engine.engine.check()


def test_placeholders_that_no_image_has_are_refused():
    image = (b"k" * 32, 2, {})
    with pytest.raises(InvalidRequest, match="3 placeholder tokens, and its images stand for 2"):
        place_images([1, 9, 9, 2, 9], 9, [image])
    with pytest.raises(InvalidRequest, match="1 placeholder tokens, and its images stand for 2"):
        place_images([1, 9, 2], 9, [image])


def test_a_picture_is_what_was_decoded():
    data = io.BytesIO()
    picture(0).save(data, "PNG")
    decoded = decode_image(data.getvalue(), max_seen_pixels=10**6)
    assert decoded.tobytes() == picture(0).tobytes()
