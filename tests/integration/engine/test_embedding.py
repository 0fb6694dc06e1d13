"""Vectors against transformers' own: pooling, encoders, pooled decoders, what is refused."""

from array import array
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertModel,
    DistilBertConfig,
    PreTrainedModel,
    RobertaConfig,
)

from cortex_core.errors import ErrorInfo, ModelLoadFailed, OutOfMemory
from neurond.engine.device import Device
from neurond.engine.embedding import EmbedInput
from neurond.engine.host_sizes import EMBED_BLOCKS
from neurond.engine.host_states import HostStates
from neurond.kernels.library import Kernels
from neurond.kernels.memory import KvPages
from neurond.kernels.packed_model import PackedModel
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models import encoder as encoders
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.decoder_states import DecoderStates
from neurond.models.encoder import Encoder, load_encoder
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from neurond.models.pooling import pool
from neurond.sources.prepared import Pooling
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import TINY_CONFIGS
from tests.integration.engine.conftest import Pair

MEAN = Pooling("mean", normalize=True)
INPUTS = [[5, 6, 7, 8, 9], [10], [11, 12], list(range(20, 60))]
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
CONFIGS = {
    "bert": lambda: BertConfig(**SIZES),
    "roberta": lambda: RobertaConfig(**SIZES, pad_token_id=1),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=320, dim=64, hidden_dim=96, n_layers=2, n_heads=4, max_position_embeddings=64
    ),
}


def read(results: Sequence[bytes | ErrorInfo]) -> NDArray[np.float32]:
    return np.stack([np.frombuffer(one, "<f4") for one in results if isinstance(one, bytes)])


def inputs_of(ids: list[list[int]], dimensions: int | None = None) -> list[EmbedInput]:
    return [EmbedInput(array("i", each), dimensions) for each in ids]


def make_encoder(name: str) -> PreTrainedModel:
    torch.manual_seed(7)
    return AutoModelForMaskedLM.from_config(CONFIGS[name]()).eval()


def own_states(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.base_model(torch.tensor([ids])).last_hidden_state[0]


def loaded(model: PreTrainedModel, folder: Path, device: Device, pooling: Pooling) -> Encoder:
    manifest = prepare_model(model, folder, pooling=pooling)
    return load_encoder(folder, manifest, "float32", device, lambda _: None)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_encoders_give_what_transformers_gives(
    name: str, mode: str, tmp_path: Path, cpu: Device
) -> None:
    model = make_encoder(name)
    pooling = Pooling(mode, normalize=True)
    encoder = loaded(model, tmp_path / name, cpu, pooling)

    found = read(encoder.embed(inputs_of(INPUTS)))

    states = [own_states(model, ids) for ids in INPUTS]
    expected = np.stack([pool(each.numpy(), pooling) for each in states])
    assert np.allclose(found, expected, atol=1e-5)
    longest = inputs_of([[2] * encoder.max_input_tokens])
    assert isinstance(encoder.embed(longest)[0], bytes)
    alone = [encoder.embed(inputs_of([ids])) for ids in INPUTS]
    assert np.allclose(found, np.concatenate([read(one) for one in alone]), atol=1e-5)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_decoders_give_their_last_states(name: str, tiny: Callable[[str], Pair]) -> None:
    pair, pooling = tiny(name), Pooling("last", normalize=True)

    found = read(DecoderStates(pair.loaded, pooling).embed(inputs_of(INPUTS)))

    states = [own_states(pair.reference, ids) for ids in INPUTS]
    expected = np.stack([pool(each.numpy(), pooling) for each in states])
    assert np.allclose(found, expected, atol=1e-4)


def packed(pair: Pair) -> tuple[Kernels, PackedModel]:
    kernels = load_kernels()
    assert not isinstance(kernels, NoKernels), kernels.reason
    plan = plan_decoder(pair.loaded.model)
    assert isinstance(plan, DecoderPlan)
    return kernels, pack_to_memory(plan, "0123456789abcdef", "bf16", kernels, lambda _: None)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral-window"])
def test_the_kernels_give_a_decoders_states_whoever_else_is_in_the_step(
    name: str, tiny: Callable[[str], Pair]
) -> None:
    pair = tiny(name)
    kernels, model = packed(pair)
    with kernels.pool(1) as threads:
        states = HostStates(kernels, threads, model, MEAN)
        together = states.embed(inputs_of(INPUTS))
        alone = [states.embed(inputs_of([ids]))[0] for ids in INPUTS]
        # Each takes a block: they are more than one step has memory for.
        many = INPUTS * (EMBED_BLOCKS // len(INPUTS) + 1)
        assert states.embed(inputs_of(many)) == alone * (len(many) // len(INPUTS))

    assert together == alone
    expected = [pool(own_states(pair.reference, ids).numpy(), MEAN) for ids in INPUTS]
    likeness = (read(together) * np.stack(expected)).sum(axis=1)
    assert likeness.min() > 0.999


def test_a_step_without_memory_fails_its_own_inputs_alone(
    tiny: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, steps = Kernels.kv_pages, count()

    def short_once(kernels: Kernels, *sizes: object) -> KvPages:
        if next(steps) == 1:
            raise OutOfMemory("cannot allocate a KV cache: no memory")
        return reserve(kernels, *sizes)

    kernels, model = packed(tiny("llama"))
    with kernels.pool(1) as threads:
        states = HostStates(kernels, threads, model, MEAN)
        (alone,) = states.embed(inputs_of([[10]]))
        monkeypatch.setattr(Kernels, "kv_pages", short_once)
        results = states.embed(inputs_of([[10]] * 3 * EMBED_BLOCKS))

    failed = results[EMBED_BLOCKS : 2 * EMBED_BLOCKS]
    assert {each.code for each in failed if isinstance(each, ErrorInfo)} == {"out_of_memory"}
    assert results == [*[alone] * EMBED_BLOCKS, *failed, *[alone] * EMBED_BLOCKS]
    assert alone not in failed


def test_a_model_that_sees_its_padding_is_refused(
    tmp_path: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(BertModel):
        @classmethod
        def from_config(cls, config, *, trust_remote_code, **options):
            return cls._from_config(config, **options)

        def forward(self, input_ids, attention_mask=None):
            return super().forward(input_ids)

    monkeypatch.setattr(encoders, "AutoModel", Careless)
    with pytest.raises(ModelLoadFailed, match="padded beside them"):
        loaded(make_encoder("bert"), tmp_path / "bert", cpu, MEAN)


def test_a_file_that_lacks_a_layer_is_refused(tmp_path: Path, cpu: Device) -> None:
    model = make_encoder("bert")
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    with pytest.raises(ModelLoadFailed, match=r"lacks .* weights of the model"):
        loaded(model, tmp_path / "bert", cpu, MEAN)
