"""Tiny models, each both as transformers runs it and as the engine does."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from neurond.engine.device import CpuDevice, open_device
from neurond.kernels.library import Kernels, VariantName
from neurond.kernels.variants import VARIANTS, NoKernels, load_kernels
from neurond.models.loader import LoadedModel, load_model
from tests.fakes.emulated_kernels import EMULATED, emulated_kernels
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import make_tiny_model


@pytest.fixture(scope="session")
def cpu() -> CpuDevice:
    """The CPU, with one thread: the tests' models are small."""
    transformers_logging.disable_progress_bar()
    device = open_device("cpu", 1, None)
    assert isinstance(device, CpuDevice)
    return device


@pytest.fixture(scope="session")
def emulate(tmp_path_factory) -> Callable[[VariantName], Kernels]:
    """Variants over an emulation, each made once; a skip where that cannot be or need not."""

    @cache
    def made(variant: VariantName) -> Kernels:
        return emulated_kernels(variant, tmp_path_factory.mktemp("emulated"))

    return made


@pytest.fixture(scope="module", params=[*VARIANTS, *(f"emulated {name}" for name in EMULATED)])
def kernels(request, emulate) -> Kernels:
    """The kernels in every variant that runs here, and those that do not over an emulation."""
    _, _, emulated = request.param.partition(" ")
    if emulated:
        return emulate(emulated)
    found = load_kernels(request.param)
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    return found


@dataclass(frozen=True)
class Pair:
    """A model as transformers runs it, and the same one loaded from its files."""

    reference: PreTrainedModel
    loaded: LoadedModel

    def generate(self, prompt: list[int], max_tokens: int) -> list[int]:
        """Return what transformers' greedy search says, to the full length."""
        self.reference.generation_config.eos_token_id = None
        with torch.inference_mode():
            tokens = self.reference.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                do_sample=False,
                max_new_tokens=max_tokens,
            )
        return tokens[0, len(prompt) :].tolist()


@pytest.fixture(scope="session")
def tiny(cpu, tmp_path_factory) -> Callable[[str], Pair]:
    """Tiny models by name, each made once."""
    pairs: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in pairs:
            reference = make_tiny_model(name)
            folder = tmp_path_factory.mktemp("models") / name
            manifest = prepare_model(reference, folder)
            loaded = load_model(folder, manifest, "float32", cpu, lambda progress: None)
            pairs[name] = Pair(reference, loaded)
        return pairs[name]

    return pair
