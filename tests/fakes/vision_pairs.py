"""A tiny model that takes images, as transformers runs it and as it is loaded from its files."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from neurond.engine.device import Device
from neurond.engine.images import ImagePrompt, place_images
from neurond.images.processor import ModelImageProcessor, ProcessedImage
from neurond.models.loader import LoadedModel, load_model
from tests.fakes.prepared_models import write_manifest

MAX_TOKENS = 12
SIZES = ((56, 84), (100, 30), (28, 28), (140, 70))


def picture(number: int) -> Image.Image:
    width, height = SIZES[number]
    pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def words(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(250), k=length)


@dataclass(frozen=True)
class Prompt:
    """Token ids with placeholders, and what is behind them."""

    token_ids: list[int]
    pictures: tuple[ProcessedImage, ...]
    images: ImagePrompt | None


@dataclass(frozen=True)
class VisionPair:
    """A model as transformers runs it, and the same one loaded from its files."""

    reference: PreTrainedModel
    loaded: LoadedModel
    processor: ModelImageProcessor
    folder: Path
    encode: Callable[[str], list[int]]

    def prompt(self, *parts: list[int] | int) -> Prompt:
        """Return a prompt of token ids and, by number, pictures."""
        token_ids: list[int] = []
        pictures, images = [], []
        for part in parts:
            if isinstance(part, list):
                token_ids += part
                continue
            seen = self.processor.process(picture(part))
            num_tokens = seen.replacement.count(self.processor.tokens.token)
            token_ids += self.encode(seen.replacement)
            pictures.append(seen)
            images.append((bytes([part]) * 32, num_tokens, seen.inputs))
        placed = place_images(token_ids, self.processor.tokens.token_id, images) if images else None
        return Prompt(token_ids, tuple(pictures), placed)

    def generate(self, prompt: Prompt, max_tokens: int = MAX_TOKENS) -> list[int]:
        """Return what transformers' greedy search says, to the full length."""
        token_ids, inputs = self._inputs(prompt)
        self.reference.generation_config.eos_token_id = None
        with torch.inference_mode():
            tokens = self.reference.generate(
                token_ids,
                attention_mask=torch.ones_like(token_ids),
                do_sample=False,
                max_new_tokens=max_tokens,
                **inputs,
            )
        return tokens[0, token_ids.shape[1] :].tolist()

    def logprobs(self, prompt: Prompt, *, causal: bool = False) -> torch.Tensor:
        """Return the log probabilities of what follows a prompt.

        With `causal` an image's tokens do not see those behind them, whatever the model is like.
        """
        token_ids, inputs = self._inputs(prompt)
        if causal:
            del inputs["token_type_ids"]
        with torch.inference_mode():
            logits = self.reference(token_ids, **inputs).logits
        return logits[0, -1].log_softmax(-1)

    def _inputs(self, prompt: Prompt) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        token_ids = torch.tensor([prompt.token_ids])
        inputs: dict[str, torch.Tensor] = {}
        if prompt.pictures:
            for name in prompt.pictures[0].inputs.keys() - {"num_crops"}:
                values = [torch.from_numpy(seen.inputs[name]) for seen in prompt.pictures]
                # The tiles of Idefics are a prompt's, in the second dimension.
                tiles = "pixel_attention_mask" in prompt.pictures[0].inputs
                inputs[name] = torch.cat(values, dim=1 if tiles else 0)
            types = (token_ids == self.processor.tokens.token_id).long()
            if hasattr(self.reference.model, "get_rope_index"):
                inputs["mm_token_type_ids"] = types
            if self.loaded.vision.two_way_tokens:
                inputs["token_type_ids"] = types
        return token_ids, inputs


def load_pair(folder: Path, reference: PreTrainedModel, device: Device) -> VisionPair:
    """Load what is in `folder`, which is `reference`."""
    processor = ModelImageProcessor(folder)
    manifest = write_manifest(folder, "safetensors", reference.config, images=processor.tokens)
    loaded = load_model(folder, manifest, "float32", device, lambda progress: None)
    tokenizer = processor.tokenizer
    return VisionPair(
        reference,
        loaded,
        processor,
        folder,
        lambda text: tokenizer(text, add_special_tokens=False).input_ids,
    )
