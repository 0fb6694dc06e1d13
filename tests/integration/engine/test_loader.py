"""Loading: every format, every kind of damage, and what is refused."""

from types import MappingProxyType

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    MambaConfig,
    NemotronConfig,
    Phi3Config,
    Qwen3NextConfig,
    T5Config,
)

from cortex_core.errors import ModelLoadFailed
from neurond.models.architecture import check_config, check_model
from neurond.models.file_matrix import FileMatrix
from neurond.models.gguf_weights import GgufWeights, dequantize
from neurond.models.loader import load_model
from neurond.sources.gguf import read_header
from tests.fakes.engine_runs import ids, make_engine
from tests.fakes.planned_models import longrope
from tests.fakes.prepared_models import prepare_gguf, prepare_model
from tests.fakes.tiny_models import TINY_CONFIGS, VOCAB_SIZE, make_tiny_model
from tests.integration.engine.conftest import Pair

QUANTISATIONS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def load(folder, manifest, cpu, dtype="float32"):
    return load_model(folder, manifest, dtype, cpu, lambda progress: None)


@pytest.fixture
def prepared(tmp_path):
    """A tiny Llama in several safetensors files."""
    folder = tmp_path / "model"
    return folder, prepare_model(make_tiny_model("llama"), folder)


def write_gguf(path, model, quantisation="F32", extra=(), others=MappingProxyType({})):
    """Write a tiny Llama as llama.cpp's converter would, with `extra` (name, values) tensors.

    `others` has quantisations of some parameters by name.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        values = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = values.shape[0] // config.head_dim
            values = values.reshape(heads, 2, config.head_dim // 2, -1).swapaxes(1, 2)
            values = values.reshape(tensor.shape)
        kind = gguf.GGMLQuantizationType[
            others.get(name, quantisation) if values.ndim > 1 else "F32"
        ]
        known = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(known, gguf.quantize(values, kind), raw_dtype=kind)
    for name, values in extra:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_model(tmp_path):
    """A tiny Llama as GGUF, and the model that it was made of."""
    model = make_tiny_model("llama")
    source = tmp_path / "source"
    source.mkdir()
    write_gguf(source / "tiny.gguf", model)
    folder = tmp_path / "model"
    return folder, prepare_gguf(source / "tiny.gguf", folder), model


@pytest.mark.parametrize("name", TINY_CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_safetensors_give_the_weights_that_were_saved(name, dtype, cpu, tmp_path):
    model = make_tiny_model(name)
    folder = tmp_path / "model"
    loaded = load(folder, prepare_model(model, folder), cpu, dtype)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    assert not any(tensor.is_meta for tensor in loaded.model.state_dict().values())
    found, expected = dict(loaded.model.named_parameters()), dict(again.named_parameters())
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key
    found, expected = dict(loaded.model.named_buffers()), dict(again.named_buffers())
    assert found.keys() == expected.keys()
    for key, value in expected.items():  # scales are kept in float32 here and rounded when used
        assert torch.equal(found[key].to(value.dtype), value), key
    assert loaded.weights_id == f"{loaded.manifest.weights_hash}-{dtype}"
    assert len(loaded.layers) == 3


def test_a_gguf_tells_which_of_its_matrices_are_wide(cpu, tmp_path):
    model = make_tiny_model("llama")
    source = tmp_path / "source"
    source.mkdir()
    wide = "model.layers.1.mlp.down_proj.weight"
    write_gguf(source / "tiny.gguf", model, "Q4_1", others={wide: "Q5_0"})
    manifest = prepare_gguf(source / "tiny.gguf", tmp_path / "model")
    loaded = load(tmp_path / "model", manifest, cpu)
    assert loaded.wide == {wide}
    assert manifest.layers.int8_parameters == model.get_parameter(wide).numel()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gguf_gives_the_weights_that_were_written(dtype, gguf_model, cpu):
    folder, manifest, model = gguf_model
    loaded = load(folder, manifest, cpu, dtype)
    expected = dict(model.to(getattr(torch, dtype)).named_parameters())
    found = dict(loaded.model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.vocab_size == VOCAB_SIZE


def test_matrices_of_a_nemotron_gguf_are_left_in_it(tmp_path):
    path = tmp_path / "tiny.gguf"
    up, norm = np.random.default_rng(1).standard_normal((2, 128, 64), np.float32)
    writer = gguf.GGUFWriter(path, "nemotron")
    writer.add_tensor("blk.0.ffn_up.weight", up)
    writer.add_tensor("blk.0.attn_norm.weight", norm[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config = NemotronConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)

    found = GgufWeights(path).state_dict(model, lambda _: None, leave_matrices=True)

    matrix = found["model.layers.0.mlp.up_proj.weight"][...]
    assert isinstance(matrix, FileMatrix)
    assert torch.equal(matrix.read_rows(5, 70), torch.from_numpy(up[5:70]))
    read = found["model.layers.0.input_layernorm.weight"][...]
    assert torch.equal(read, torch.from_numpy(norm[0] - 1))


def prepare_with(tmp_path, extra):
    source = tmp_path / "source"
    source.mkdir()
    write_gguf(source / "tiny.gguf", make_tiny_model("llama"), extra=extra)
    return tmp_path / "model", prepare_gguf(source / "tiny.gguf", tmp_path / "model")


def test_rotary_factors_of_a_gguf_scale_its_frequencies(cpu, tmp_path):
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    folder, manifest = prepare_with(tmp_path, [("rope_freqs.weight", factors)])
    rotary = load(folder, manifest, cpu).model.model.rotary_emb
    plain = make_tiny_model("llama").model.rotary_emb
    assert torch.equal(rotary.inv_freq, plain.inv_freq / torch.from_numpy(factors))


@pytest.mark.parametrize(
    ("name", "length", "reason"),
    [
        ("rope_freqs.weight", 5, "5 rotary factors for 8 frequencies"),
        ("rope_factors_long.weight", 8, "length of the context"),
    ],
)
def test_rotary_factors_that_cannot_be_applied_are_refused(name, length, reason, cpu, tmp_path):
    folder, manifest = prepare_with(tmp_path, [(name, np.ones(length, np.float32))])
    with pytest.raises(ModelLoadFailed, match=reason):
        load(folder, manifest, cpu)


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_dequantised_values_are_those_of_the_gguf_package(quantisation, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", make_tiny_model("llama"), quantisation)
    header = read_header(tmp_path / "tiny.gguf")
    data = np.memmap(tmp_path / "tiny.gguf", dtype=np.uint8, mode="r")[header.data_start :]
    tensors = gguf.GGUFReader(tmp_path / "tiny.gguf").tensors
    assert len(tensors) == len(header.tensors)
    for entry, tensor in zip(header.tensors, tensors, strict=True):
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(dequantize(data, entry), expected), entry.name


def test_a_loaded_gguf_generates_like_its_original(gguf_model, cpu):
    folder, manifest, model = gguf_model
    prompt = [5, 6, 7, 8]
    engine = make_engine(load(folder, manifest, cpu))
    expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=8)
    assert engine.generate(prompt, 8) == expected[0, 4:].tolist()


@pytest.mark.parametrize("fixture", ["prepared", "gguf_model"])
def test_progress_grows_to_one(fixture, request, cpu):
    folder, manifest = request.getfixturevalue(fixture)[:2]
    told: list[float] = []
    load_model(folder, manifest, "float32", cpu, told.append)
    assert told == sorted(told)
    assert told[0] > 0.0
    assert told[-1] > 0.9
    assert len(told) > 10


@pytest.mark.parametrize("fixture", ["prepared", "gguf_model"])
def test_a_truncated_file_is_named(fixture, request, cpu):
    folder, manifest = request.getfixturevalue(fixture)[:2]
    path = folder / manifest.weights[0].name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ModelLoadFailed, match=path.name):
        load(folder, manifest, cpu)


@pytest.mark.parametrize("fixture", ["prepared", "gguf_model"])
def test_an_absent_file_is_named(fixture, request, cpu):
    folder, manifest = request.getfixturevalue(fixture)[:2]
    path = folder / manifest.weights[0].name
    path.unlink()
    with pytest.raises(ModelLoadFailed, match=path.name):
        load(folder, manifest, cpu)


@pytest.mark.parametrize("fixture", ["prepared", "gguf_model"])
@pytest.mark.parametrize("start", [0, 4, 9, 60, 200])
def test_a_garbled_header_is_an_error(fixture, start, request, cpu):
    folder, manifest = request.getfixturevalue(fixture)[:2]
    path = folder / manifest.weights[0].name
    content = bytearray(path.read_bytes())
    content[start : start + 24] = b"\xff" * 24
    path.write_bytes(content)
    with pytest.raises(ModelLoadFailed):
        load(folder, manifest, cpu)


def test_a_lacking_weight_is_named(prepared, cpu):
    folder, manifest = prepared
    for file in manifest.weights:
        tensors = load_file(folder / file.name)
        name = "model.layers.1.mlp.down_proj.weight"
        if name in tensors:
            tensors["padding.weight"] = tensors.pop(name)
            save_file(tensors, folder / file.name, metadata={"format": "pt"})
    manifest = prepare_again(folder, manifest)
    with pytest.raises(ModelLoadFailed, match=r"lacks 1 weights.*layers\.1\.mlp\.down_proj"):
        load(folder, manifest, cpu)


def prepare_again(folder, manifest):
    weights = tuple(
        type(file)(file.name, (folder / file.name).stat().st_size, file.sha256)
        for file in manifest.weights
    )
    return type(manifest)(
        **{name: getattr(manifest, name) for name in manifest.__struct_fields__}
        | {"weights": weights}
    )


def test_a_config_that_does_not_fit_the_weights_is_an_error(prepared, cpu):
    folder, manifest = prepared
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_size": 64', '"hidden_size": 32'))
    with pytest.raises(ModelLoadFailed, match="shape"):
        load(folder, manifest, cpu)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "none-such"}', "{}"])
def test_a_bad_config_is_named(text, prepared, cpu):
    folder, manifest = prepared
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelLoadFailed, match=r"config\.json"):
        load(folder, manifest, cpu)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (T5Config(), "encoder"),
        (Qwen3NextConfig(num_hidden_layers=4), "linear_attention"),
        (
            Phi3Config(**longrope(64)),
            "prepared for 65 tokens, and its positions are right up to 64; .* pull it again",
        ),
    ],
    ids=["encoder", "linear attention", "prepared for more than is right"],
)
def test_configs_that_cannot_be_served_say_why(config, reason):
    with pytest.raises(ModelLoadFailed, match=reason):
        check_config(config, 65)


def test_of_two_rotary_tables_the_first_is_right_to_its_end(cpu, tmp_path):
    torch.manual_seed(20240229)
    config = Phi3Config(**longrope(64))
    reference = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    manifest = prepare_model(reference, tmp_path / "model")
    assert manifest.context_tokens == 64
    pair = Pair(reference, load(tmp_path / "model", manifest, cpu))
    engine = make_engine(pair.loaded, max_sequences=3, step_tokens=24)
    prompts = [[*range(2, 2 + length)] for length in (40, 3, 63)]
    streams = [engine.submit(prompt, 64 - len(prompt)) for prompt in prompts]
    tokens = engine.finish()
    for stream, prompt in zip(streams, prompts, strict=True):
        assert ids(tokens[stream]) == pair.generate(prompt, 64 - len(prompt))
    with torch.inference_mode():
        at_64, at_65 = (
            reference(torch.tensor([[*range(2, 2 + length)]])).logits[0, 1:40]
            for length in (64, 65)
        )
    assert not torch.allclose(at_64, at_65, atol=1e-3), "the second one is another"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64), "outside of attention"),
        (BloomConfig(hidden_size=32, n_layer=1, n_head=2, vocab_size=64), "AttentionInterface"),
    ],
    ids=["state space", "no interface"],
)
def test_models_that_cannot_be_served_say_why(config, reason):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelLoadFailed, match=reason):
        check_model(model)


def test_a_model_with_absolute_positions_is_served(cpu, tmp_path):
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=64,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.3,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    folder = tmp_path / "gpt2"
    model.save_pretrained(folder)
    assert AutoConfig.from_pretrained(folder).model_type == "gpt2"
    prompt = [1, 2, 3, 4, 5]
    expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=8)
    loaded = load(folder, prepare_model(model, folder), cpu)
    assert make_engine(loaded).generate(prompt, 8) == expected[0, 5:].tolist()
