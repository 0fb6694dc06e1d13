"""The CPU's backend without a process around it: which way it goes with which model."""

import gc
import json
import logging
import random
from array import array
from pathlib import Path
from shutil import rmtree

import msgspec
import numpy as np
import pytest
from transformers import BertConfig, BertModel

from cortex_core.errors import InternalError, ModelLoadFailed, OutOfMemory
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import Dtype, EmbeddingSizes
from neurond.actor import cpu_backend
from neurond.actor.backend import ServedModel
from neurond.actor.cpu_backend import CpuBackend
from neurond.engine import memory_ahead
from neurond.engine.embedding import EmbedInput
from neurond.host import HostMemory
from neurond.kernels.file_memory import borrowed_bytes
from neurond.kernels.packed_file import PackedDecoder, peek
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.memory_plan import CPU_ACTIVATION_BYTES, activation_bytes, packed_bytes
from neurond.protocol import Configure, LoadModel
from neurond.sources.prepared import Pooling, PreparedModel
from tests.fakes.engine_runs import EngineUnderTest, ids
from tests.fakes.model_cache import SMOLLM2, real_model
from tests.fakes.planned_models import PLANNED, REFUSED, make_model
from tests.fakes.prepared_models import prepare_model, write_manifest
from tests.fakes.published_configs import PUBLISHED
from tests.fakes.resident_memory import skip_where_nothing_populates
from tests.fakes.tiny_models import make_tiny_model
from tests.fakes.tiny_vision import make_gemma3, make_qwen
from tests.fakes.vision_pairs import Prompt, load_pair

PROMPT = [1, 2, 3]
CAPITAL_OF_FRANCE_IS, PARIS = [504, 3575, 282, 4649, 314], [7042]


@pytest.fixture
def backend() -> CpuBackend:
    return opened()


@pytest.fixture
def variant() -> str:
    kernels = load_kernels()
    assert not isinstance(kernels, NoKernels), kernels.reason
    return kernels.variant


def opened() -> CpuBackend:
    made = CpuBackend()
    made.open(Configure(DeviceName("cpu"), 1))
    return made


def command(folder: Path, dtype: Dtype, **changes: object) -> LoadModel:
    fields: dict[str, object] = {
        "model_id": ModelId("file:tiny"),
        "model_dir": str(folder),
        "dtype": dtype,
        "context_tokens": 256,
        "max_sequences": 4,
        "kv_cache_bytes": 1 << 20,
        "block_tokens": 16,
        "fallback_dtype": "float32",
    }
    return LoadModel(**(fields | changes))


def load(backend: CpuBackend, folder: Path, dtype: Dtype, **changes: object) -> ServedModel:
    return backend.load(command(folder, dtype, **changes), lambda _: None)


def generate(served: ServedModel) -> list[int]:
    return EngineUnderTest(served.new_engine()).generate(PROMPT, 6)


@pytest.mark.parametrize("name", PLANNED)
def test_architectures_that_the_kernels_know_are_served_by_them(backend, variant, tmp_path, name):
    manifest = prepare_model(make_model(PLANNED[name]()), tmp_path / name)
    served = load(backend, tmp_path / name, "int8")
    assert (served.loaded.dtype, served.loaded.kernels) == ("int8", variant)
    assert served.loaded.kernels_unavailable_reason is None
    assert len(generate(served)) == 6
    assert served.loaded.weights_bytes == pytest.approx(packed_bytes(manifest, "int8"), rel=0.2)
    served.free()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_served_by_the_kernels(backend, variant, tmp_path, name):
    prepare_model(make_model(PLANNED[name]()), tmp_path)
    of_todays_keys = load(backend, tmp_path, "bfloat16")
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    rmtree(tmp_path / "packed")
    served = load(backend, tmp_path, "bfloat16")
    assert (served.loaded.kernels, served.loaded.kernels_unavailable_reason) == (variant, None)
    assert generate(served) == generate(of_todays_keys)


def test_memory_made_resident_between_steps_leaves_answers_as_they_are(
    backend, variant, tmp_path, monkeypatch
):
    skip_where_nothing_populates()
    monkeypatch.setattr(memory_ahead, "host_memory", lambda: HostMemory(1 << 40, 1 << 40))
    prepare_model(make_model(PLANNED["llama"]()), tmp_path / "llama")
    answers = []
    for ahead in (True, False):
        served = load(backend, tmp_path / "llama", "int8", kv_cache_bytes=16 << 20)
        assert served.make_resident is not None
        engine = EngineUnderTest(served.new_engine())
        said, pieces = [], []
        for length in (3, 40, 100):
            pieces.append(0)
            while ahead and served.make_resident(engine.engine.scheduler.frontier):
                pieces[-1] += 1
            said.append(engine.generate(range(1, length), 20))
        assert (pieces[0] > 0) == ahead
        answers.append(said)
        served.free()
    assert answers[0] == answers[1]


def lies_in_its_file(folder: Path) -> bool:
    """Tell whether this process reads weights of the model in `folder` from their packed file."""
    return str(folder / "packed") in Path("/proc/self/maps").read_text()


def test_weights_are_read_from_their_file_until_an_idle_device_has_copied_them(
    backend, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory_ahead, "host_memory", lambda: HostMemory(1 << 40, 1 << 40))
    prepare_model(make_model(PLANNED["llama"]()), tmp_path)
    served = load(backend, tmp_path, "int8")
    assert served.make_resident is not None
    assert lies_in_its_file(tmp_path)

    while served.make_resident(0):
        pass

    assert not lies_in_its_file(tmp_path)
    copied = generate(served)
    served.free()
    assert copied == generate(load(backend, tmp_path, "int8"))


def test_a_device_that_is_never_idle_copies_weights_beside_its_steps(
    backend, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory_ahead, "host_memory", lambda: HostMemory(1 << 40, 1 << 40))
    prepare_model(make_model(PLANNED["llama"]()), tmp_path)
    served = load(backend, tmp_path, "int8")
    assert served.stepped is not None
    generate(served)
    assert lies_in_its_file(tmp_path)

    served.stepped(60.0)  # a long step brings a piece with it, and these weights are one

    assert not lies_in_its_file(tmp_path)


def test_a_model_that_is_unloaded_leaves_its_file(backend, tmp_path):
    prepare_model(make_model(PLANNED["llama"]()), tmp_path)
    served = load(backend, tmp_path, "int8")
    assert lies_in_its_file(tmp_path)

    served.free()
    del served

    assert not lies_in_its_file(tmp_path)


def see(served: ServedModel, prompt: Prompt) -> list[int]:
    engine = EngineUnderTest(served.new_engine())
    stream = engine.submit(prompt.token_ids, 6, images=prompt.images)
    return ids(engine.finish()[stream])


def test_images_are_looked_at_beside_weights_that_are_packed_once(variant, cpu, tmp_path):
    folder = tmp_path / "gemma3"
    pair = load_pair(folder, make_gemma3(folder), cpu)
    prompt = pair.prompt([1, 2, 3], 0, [4, 5])
    config, tokens = pair.reference.config, pair.processor.tokens
    write_manifest(folder, "safetensors", config)  # as a model of text
    text = load(opened(), folder, "bfloat16")
    assert text.loaded.kernels == variant
    (packed,) = folder.glob("packed/*.bin")
    of_text = packed.read_bytes()

    of_decoder = (pair.reference.get_decoder(), pair.reference.get_output_embeddings())
    in_decoder = sum(p.numel() for part in of_decoder for p in part.parameters())
    whole = sum(p.numel() for p in pair.reference.parameters())
    images = msgspec.structs.replace(tokens, tower_parameters=whole - in_decoder)
    manifest = write_manifest(folder, "safetensors", config, images=images)
    told: list[float] = []
    first = opened().load(command(folder, "bfloat16"), told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert packed.read_bytes() != of_text, "it does not say how images are seen"
    assert first.loaded.kernels == variant
    tower_bytes = first.loaded.weights_bytes - text.loaded.weights_bytes
    assert tower_bytes == pytest.approx(
        (2 if variant == "amx" else 4) * (whole - in_decoder), abs=64
    )
    assert packed_bytes(manifest, "bfloat16") > first.loaded.weights_bytes * 0.8

    made = packed.stat().st_mtime_ns
    second = opened().load(command(folder, "bfloat16"), lambda _: None)
    assert packed.stat().st_mtime_ns == made
    seen = [see(served, prompt) for served in (first, second)]
    assert seen[0] == seen[1]
    assert see(first, pair.prompt([1, 2, 3], 1, [4, 5])) != seen[0]
    for served in (text, first, second):
        served.free()


def test_images_that_do_more_are_torchs(backend, cpu, tmp_path):
    folder = tmp_path / "qwen"
    pair = load_pair(folder, make_qwen(folder), cpu)
    served = load(backend, folder, "bfloat16")
    assert (served.loaded.kernels, served.loaded.dtype) == ("torch", "bfloat16")
    assert served.make_resident is None
    assert len(see(served, pair.prompt([1, 2, 3], 0, [4, 5]))) == 6


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["int4", "int8"])
def test_a_real_model_is_packed_once_and_right(tmp_path: Path, dtype: Dtype) -> None:
    source, manifest = real_model(SMOLLM2)
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    asked = command(tmp_path, dtype, kv_cache_bytes=1 << 23)
    told: list[float] = []
    first = opened().load(asked, told.append)
    assert len(told) > 1
    assert told == sorted(told)
    told.clear()

    second = opened().load(asked, told.append)

    assert told == [1.0], "it was packed again"
    assert first.loaded == second.loaded
    assert second.loaded.weights_bytes == pytest.approx(packed_bytes(manifest, dtype), rel=0.01)
    engine = EngineUnderTest(second.new_engine())
    assert engine.generate(CAPITAL_OF_FRANCE_IS, 1) == PARIS
    said = random.Random(3).sample(range(1000, 20_000), 60)
    copied = engine.generate([*said, *said[:6]], 48)
    third = opened().load(msgspec.structs.replace(asked, speculation="ngram"), told.append)
    drafting = EngineUnderTest(third.new_engine())
    assert drafting.generate([*said, *said[:6]], 48) == copied
    assert drafting.engine.scheduler.num_accepted_tokens >= 24


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Path, PreparedModel]:
    folder = tmp_path / "llama"
    return folder, prepare_model(make_model(PLANNED["llama"]()), folder)


def test_without_kernels_torch_serves_and_says_why(llama, monkeypatch, caplog):
    monkeypatch.setattr(cpu_backend, "load_kernels", lambda: NoKernels("it is not built"))
    backend = CpuBackend()
    found = backend.open(Configure(DeviceName("cpu"), 1))
    assert found.kernels is None
    assert found.kernels_unavailable_reason == "it is not built"
    assert found.attention_backend == "torch-reference"
    with caplog.at_level(logging.WARNING):
        served = load(backend, llama[0], "bfloat16", fallback_dtype="bfloat16")
    assert [record.message for record in caplog.records].count(
        "torch computes a model, slower than the CPU kernels would"
    ) == 1
    assert (served.loaded.dtype, served.loaded.kernels) == ("bfloat16", "torch")
    assert "it is not built" in served.loaded.kernels_unavailable_reason
    with pytest.raises(ModelLoadFailed, match=r"as int8: there are no CPU kernels \(it is not"):
        load(backend, llama[0], "int8", fallback_dtype=None)


def test_int8_keys_and_values_give_room_for_nearly_twice_the_tokens(backend, llama):
    plain = load(backend, llama[0], "bfloat16", max_sequences=64)
    small = load(backend, llama[0], "bfloat16", max_sequences=64, kv_dtype="int8")
    assert (plain.loaded.kv_dtype, small.loaded.kv_dtype) == ("bfloat16", "int8")
    assert small.loaded.weights_id == f"{plain.loaded.weights_id}-kv-int8"
    assert small.loaded.num_blocks > 1.7 * plain.loaded.num_blocks
    assert small.loaded.kv_cache_bytes <= 1 << 20
    assert len(generate(small)) == 6


def test_int8_keys_and_values_are_refused_where_torch_serves(backend, llama, tmp_path, monkeypatch):
    prepare_model(make_model(REFUSED["narrow"][0]()), tmp_path / "narrow")
    told = "with keys and values in int8: .*; leave kv_dtype out of its profile"
    with pytest.raises(ModelLoadFailed, match=told):
        load(backend, tmp_path / "narrow", "bfloat16", kv_dtype="int8", fallback_dtype=None)
    monkeypatch.setattr(cpu_backend, "load_kernels", lambda: NoKernels("it is not built"))
    without = opened()
    with pytest.raises(ModelLoadFailed, match=told):
        load(without, llama[0], "bfloat16", kv_dtype="int8", fallback_dtype=None)
    served = load(without, llama[0], "bfloat16", fallback_dtype="bfloat16")
    assert served.loaded.kv_dtype == "bfloat16"
    assert served.loaded.kv_cache_bytes <= 1 << 20


def test_torch_has_room_for_as_many_tokens_as_the_kernels_would(backend, tmp_path):
    make, reason = REFUSED["narrow"]
    prepare_model(make_model(make()), tmp_path / "narrow")
    token_bytes = 2 * 2 * 3 * 2 * 16  # keys and values in bfloat16, 3 layers of 2 heads of 16
    served = load(backend, tmp_path / "narrow", "int8", kv_cache_bytes=(256 + 16) * token_bytes)
    assert (served.loaded.dtype, served.loaded.context_tokens) == ("float32", 256)
    assert reason in served.loaded.kernels_unavailable_reason
    assert len(generate(served)) == 6


def test_a_folder_that_cannot_be_written_to_is_no_obstacle(backend, llama):
    (llama[0] / "packed").write_text("in the way")
    served = load(backend, llama[0], "int8")
    assert len(generate(served)) == 6


def test_a_model_that_does_not_fit_is_refused_with_the_arithmetic(backend, llama):
    with pytest.raises(OutOfMemory, match=r"cannot load file:tiny on cpu: .* bytes .* are free;"):
        load(backend, llama[0], "int8", kv_cache_bytes=1 << 50)
    with pytest.raises(OutOfMemory, match="cannot allocate a KV cache: 1 bytes"):
        load(backend, llama[0], "int8", kv_cache_bytes=1)


def test_what_steps_take_is_asked_for_before_weights_are_read(llama, monkeypatch):
    folder, manifest = llama
    served = load(opened(), folder, "int8")
    steps = served.loaded.activation_bytes
    assert steps is not None
    assert steps > CPU_ACTIVATION_BYTES
    needed = packed_bytes(manifest, "int8") + (1 << 20) + steps
    memory = HostMemory(needed, needed)
    monkeypatch.setattr(cpu_backend, "process_memory", lambda *_: memory)
    assert load(opened(), folder, "int8").loaded == served.loaded
    memory = HostMemory(needed, needed - 1)
    monkeypatch.setattr(cpu_backend, "open_packed", None)  # so whoever calls it fails otherwise
    with pytest.raises(OutOfMemory, match=f"steps of 1 threads {steps}, {needed} bytes in all"):
        load(opened(), folder, "int8")


def test_weights_that_lie_in_their_file_are_not_free_for_others(llama, monkeypatch):
    folder, manifest = llama
    gc.collect()  # models of other tests
    free = borrowed_bytes()
    served = load(opened(), folder, "int8")
    assert served.make_resident is not None
    assert served.loaded.activation_bytes is not None
    free += packed_bytes(manifest, "int8") + (1 << 20) + served.loaded.activation_bytes
    monkeypatch.setattr(
        cpu_backend, "process_memory", lambda _, borrowed: HostMemory(free, free - borrowed)
    )
    with pytest.raises(OutOfMemory, match=f"and {free - borrowed_bytes()} are free"):
        load(opened(), folder, "int8")

    monkeypatch.setattr(memory_ahead, "host_memory", lambda: HostMemory(1 << 40, 1 << 40))
    while served.make_resident(0):
        pass
    load(opened(), folder, "int8")


def test_a_file_of_another_version_is_not_asked_for_sizes(llama, monkeypatch):
    folder, _ = llama
    served = load(opened(), folder, "int8")

    def of_another_version(path: Path) -> PackedDecoder:
        decoder = peek(path)
        layers = [msgspec.structs.replace(each, activation="new") for each in decoder.layers]
        return msgspec.structs.replace(decoder, plan_source="other", layers=layers)

    monkeypatch.setattr(cpu_backend, "peek", of_another_version)
    assert load(opened(), folder, "int8").loaded == served.loaded


def test_what_steps_take_is_estimated_before_weights_are_packed(llama, monkeypatch):
    folder, manifest = llama
    steps = activation_bytes(manifest, "int8", "cpu", 4)
    free = packed_bytes(manifest, "int8") + (1 << 20) + steps - 1
    monkeypatch.setattr(cpu_backend, "process_memory", lambda *_: HostMemory(free, free))
    with pytest.raises(OutOfMemory, match=f"steps of 1 threads {steps}"):
        load(opened(), folder, "int8")
    assert not (folder / "packed").exists()
    # What is packed can be found to be larger than what was estimated: nothing of it is read then.
    free += 1
    monkeypatch.setattr(cpu_backend, "activation_bytes_of", lambda *_, **__: steps + 1)
    with pytest.raises(OutOfMemory, match=f"steps of 1 threads {steps + 1}"):
        load(opened(), folder, "int8")
    assert list(folder.glob("packed/*.bin"))


def test_a_folder_without_a_manifest_is_refused(backend, tmp_path):
    with pytest.raises(ModelLoadFailed, match=r"model\.json"):
        load(backend, tmp_path, "int8")


def test_errors_become_ours_with_and_without_torch(backend, llama):
    for _ in range(2):
        ours = OutOfMemory("cannot")
        assert backend.describe(ours) is ours
        assert isinstance(backend.describe(MemoryError("no")), OutOfMemory)
        assert isinstance(backend.describe(ValueError("what")), InternalError)
        assert not backend.is_poisoned(ValueError("what"))
        load(backend, llama[0], "float32")


def vectors(served: ServedModel) -> np.ndarray:
    assert served.embedder is not None
    inputs = [EmbedInput(array("i", ids)) for ids in ([5, 6, 7], [8])]
    return np.stack([np.frombuffer(one, "<f4") for one in served.embedder.embed(inputs)])


def test_decoders_give_vectors_either_way_and_encoders_by_torch(backend, variant, tmp_path):
    prepare_model(make_tiny_model("llama"), tmp_path / "llama")
    packed = load(backend, tmp_path / "llama", "bfloat16")
    by_torch = load(backend, tmp_path / "llama", "float32")
    assert (packed.loaded.kernels, by_torch.loaded.kernels) == (variant, "torch")
    assert packed.loaded.embedding == by_torch.loaded.embedding == EmbeddingSizes(64, 256)
    assert (vectors(packed) * vectors(by_torch)).sum(axis=1).min() > 0.999

    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64}
    bert = BertModel(BertConfig(**sizes, num_attention_heads=4))
    pooling = Pooling("mean", normalize=True)
    prepare_model(bert, tmp_path / "bert", capabilities=("embeddings",), pooling=pooling)
    encoder = load(backend, tmp_path / "bert", "bfloat16")
    assert (encoder.loaded.kernels, encoder.loaded.kv_cache_bytes) == ("torch", 0)
    assert encoder.loaded.embedding == EmbeddingSizes(64, 256)
    assert encoder.new_engine is None
    assert np.allclose(np.linalg.norm(vectors(encoder), axis=1), 1, atol=1e-3)
