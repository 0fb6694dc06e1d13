"""Gemma 3: the tokens of an image see each other both ways, whatever cuts and shares a prompt."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Gemma3Processor
from transformers.models.gemma3 import modeling_gemma3

from cortex_core.canonical import SamplingParams
from cortex_core.errors import InvalidRequest, ModelLoadFailed
from neurond.attention.reference import ReferenceBackend
from neurond.engine.kv_cache import KvCache
from neurond.engine.runner import ModelRunner
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.loader import load_model
from neurond.models.plan_check import plan_decoder
from neurond.models.torch_serving import TorchServing
from neurond.sources.prepare import prepare
from tests.fakes.engine_runs import GREEDY, ids, make_engine
from tests.fakes.tiny_vision import make_gemma3
from tests.fakes.vision_pairs import MAX_TOKENS, VisionPair, load_pair, words

IMAGE_TOKENS = 16


@pytest.fixture(scope="module")
def gemma(cpu, tmp_path_factory) -> VisionPair:
    folder = tmp_path_factory.mktemp("gemma") / "gemma3"
    return load_pair(folder, make_gemma3(folder), cpu)


def as_published(folder: Path) -> None:
    """Give config and weights the form that the hub's repositories have."""
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        tower, dot, rest = name.partition("vision_tower.")
        if rest.startswith("head."):
            continue
        weights[f"vision_tower.vision_model.{rest}" if dot and not tower else name] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    del text["layer_types"], text["rope_parameters"], text["_sliding_window_pattern"]
    text["sliding_window_pattern"] = 2
    text["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
    config["vision_config"]["vision_use_head"] = False
    (folder / "config.json").write_text(json.dumps(config))


def test_a_checkpoint_is_read_by_the_names_of_its_publisher(cpu, tmp_path):
    folder = tmp_path / "published"
    make_gemma3(folder)
    as_published(folder)
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    pair = load_pair(folder, reference, cpu)
    for prompt in (pair.prompt(words(1, 9), 0, words(2, 4)), pair.prompt(words(3, 30))):
        engine = make_engine(pair.loaded)
        stream = engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images)
        assert ids(engine.finish()[stream]) == pair.generate(prompt)


def test_without_a_processor_it_is_a_model_of_text_that_the_kernels_take(cpu, tmp_path):
    folder = tmp_path / "text"
    reference = make_gemma3(folder)
    as_published(folder)
    (folder / "processor_config.json").unlink()
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    manifest = prepare(folder, "file:text")
    assert manifest.images is None
    assert manifest.has_plan
    assert "vision" not in manifest.capabilities
    loaded = load_model(folder, manifest, "float32", cpu, lambda progress: None)
    assert isinstance(plan_decoder(loaded.model), DecoderPlan)
    prompt = words(1, 30)
    reference.generation_config.eos_token_id = None
    expected = reference.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=MAX_TOKENS
    )
    assert make_engine(loaded).generate(prompt, MAX_TOKENS) == expected[0, 30:].tolist()


def test_what_is_known_of_a_model_before_it_is_loaded(tmp_path):
    folder = tmp_path / "known"
    reference = make_gemma3(folder)
    as_published(folder)
    manifest = prepare(folder, "file:known")
    assert manifest.has_plan
    assert manifest.images.in_place
    assert (manifest.images.placeholder, manifest.images.token) == (
        "<start_of_image>",
        "<image_soft_token>",
    )
    parts = (reference.model.vision_tower, reference.model.multi_modal_projector)
    unread = sum(p.numel() for p in reference.model.vision_tower.head.parameters())
    of_tower = sum(p.numel() for part in parts for p in part.parameters()) - unread
    assert manifest.images.tower_parameters == of_tower


@pytest.mark.parametrize("step_tokens", [8 + IMAGE_TOKENS, 512])
def test_cut_and_beside_others_tokens_are_those_of_transformers(gemma, step_tokens):
    engine = make_engine(gemma.loaded, step_tokens=step_tokens)
    asked = [
        gemma.prompt(0, words(1, 9)),
        gemma.prompt(words(5, 3), 0, words(6, 2), 3, words(7, 4)),
        gemma.prompt(words(10, 30)),
        gemma.prompt(words(4, 40), 2, words(12, 1)),
    ]
    streams = [engine.submit(p.token_ids, MAX_TOKENS, images=p.images) for p in asked]
    tokens = engine.finish()
    for stream, prompt in zip(streams, asked, strict=True):
        assert ids(tokens[stream]) == gemma.generate(prompt)


def test_a_model_that_looks_both_ways_is_served_so(gemma):
    assert gemma.loaded.vision.two_way_tokens == IMAGE_TOKENS
    serving = TorchServing(
        gemma.loaded,
        context_tokens=512,
        max_sequences=510,
        kv_cache_bytes=1 << 22,
        block_tokens=8,
    )
    engine = serving.new_engine()
    assert engine.scheduler.config.two_way_tokens == IMAGE_TOKENS
    assert engine.scheduler.config.step_tokens == 510 + IMAGE_TOKENS


class Keeping(ReferenceBackend):
    """Keeps the batches that it has planned."""

    def __init__(self) -> None:
        self.batches = []

    def plan(self, batch):
        self.batches.append(batch)
        return super().plan(batch)


@pytest.mark.parametrize(("context", "run"), [(100, IMAGE_TOKENS), (10, 10)])
def test_the_longest_image_is_rehearsed_behind_the_longest_context(gemma, context, run):
    loaded, backend = gemma.loaded, Keeping()
    cache = KvCache(
        [layer.shape for layer in loaded.layers],
        num_blocks=4,
        block_tokens=8,
        dtype=loaded.dtype,
        device=loaded.device.torch_device,
    )
    runner = ModelRunner(loaded.model, loaded.device.torch_device, backend, cache, loaded.vision)
    runner.rehearse(5 + IMAGE_TOKENS, 5, context)
    (batch,) = backend.batches
    assert sum(batch.query_lens) == 5 + IMAGE_TOKENS
    assert [each for each in batch.two_way if each] == [True]
    assert batch.two_way[-1]
    assert (batch.query_lens[-1], batch.kv_lens[-1]) == (run, context)
    for layer in range(len(loaded.layers)):
        for pages in cache.pages(layer):
            assert not pages.any()


def test_an_image_begins_a_prompt_in_the_cache_whole_or_not_at_all(gemma):
    engine = make_engine(gemma.loaded, block_tokens=8)
    start = words(2, 2)
    first = gemma.prompt(start, 1, words(3, 30))
    place = first.images.images[0].start
    assert place < 8 < place + IMAGE_TOKENS < 24  # its first block goes on, its last one too
    shorter = first.token_ids[: place + IMAGE_TOKENS + 2]
    for token_ids, cached in ((first.token_ids, 0), (shorter, 0), (first.token_ids, 48)):
        stream = engine.submit(token_ids, MAX_TOKENS, images=first.images)
        tokens = ids(engine.finish()[stream])
        assert engine.cached_tokens[-1] == cached
        alone = make_engine(gemma.loaded)
        stream = alone.submit(token_ids, MAX_TOKENS, images=first.images)
        assert tokens == ids(alone.finish()[stream])


def test_two_who_show_the_same_image_at_once_get_the_same(gemma):
    prompt = gemma.prompt(words(2, 6), 0, words(3, 25))
    engine = make_engine(gemma.loaded, step_tokens=8 + IMAGE_TOKENS)
    streams = [engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images) for _ in range(3)]
    tokens = engine.finish()
    assert [ids(tokens[stream]) for stream in streams] == [gemma.generate(prompt)] * 3


def test_an_image_in_crops_has_runs_of_its_own(cpu, tmp_path, monkeypatch):
    """Pan and scan shows parts of a long image beside all of it."""
    monkeypatch.setitem(Gemma3Processor.images_kwargs, "do_pan_and_scan", True)
    monkeypatch.setitem(Gemma3Processor.images_kwargs, "pan_and_scan_min_crop_size", 10)
    folder = tmp_path / "crops"
    reference = make_gemma3(folder)
    pair = load_pair(folder, reference, cpu)
    prompt = pair.prompt(words(2, 6), 1, words(3, 5))
    assert len(prompt.images.images[0].places) > 2 * IMAGE_TOKENS
    engine = make_engine(pair.loaded, step_tokens=8 + IMAGE_TOKENS)
    stream = engine.submit(prompt.token_ids, MAX_TOKENS, images=prompt.images)
    assert ids(engine.finish()[stream]) == pair.generate(prompt)


def test_what_no_step_can_take_is_refused(gemma):
    prompt = gemma.prompt(words(2, 6), 0, words(3, 5))
    engine = make_engine(gemma.loaded)
    scoring = SamplingParams(temperature=0.0, logprobs=1, scores_prompt=True)
    with pytest.raises(InvalidRequest, match="cannot score a prompt with images"):
        engine.submit(prompt.token_ids, 1, scoring, images=prompt.images)
    small = make_engine(gemma.loaded, two_way_tokens=IMAGE_TOKENS - 1)
    with pytest.raises(InvalidRequest, match="16 of its tokens see each other, 15 is the most"):
        small.submit(prompt.token_ids, 1, GREEDY, images=prompt.images)


def test_a_model_whose_text_looks_ahead_is_refused(cpu, tmp_path, monkeypatch):
    reference = make_gemma3(tmp_path / "all")
    monkeypatch.setattr(
        modeling_gemma3,
        "get_block_sequence_ids_for_mask",
        lambda token_type_ids, device=None: torch.zeros_like(token_type_ids),
    )
    with pytest.raises(ModelLoadFailed, match="neither causal nor two-way within images"):
        load_pair(tmp_path / "all", reference, cpu)


def test_a_window_that_an_image_ignores_is_not_ours(cpu, tmp_path, monkeypatch):
    reference = make_gemma3(tmp_path / "window")
    monkeypatch.setattr(
        modeling_gemma3, "sliding_window_overlay", lambda size: lambda *places: places[2] >= 0
    )
    with pytest.raises(ModelLoadFailed, match="neither causal nor two-way within images"):
        load_pair(tmp_path / "window", reference, cpu)


def test_images_that_would_see_each_other_are_refused(cpu, tmp_path, monkeypatch):
    reference = make_gemma3(tmp_path / "bare")
    monkeypatch.setattr(
        Gemma3Processor,
        "replace_image_token",
        lambda self, *_args, **_kwargs: self.tokenizer.image_token * IMAGE_TOKENS,
    )
    with pytest.raises(ModelLoadFailed, match="images side by side attend to each other"):
        load_pair(tmp_path / "bare", reference, cpu)
