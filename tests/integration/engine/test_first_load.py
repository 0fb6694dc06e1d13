"""The first load of a model on a CPU: its weights are packed while they are read."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaConfig

from cortex_core.errors import ModelLoadFailed, OutOfMemory
from neurond.engine.device import CpuDevice, MemoryInfo
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import LAYER_AND_HEAD, WeightFormat, packed_path, peek
from neurond.kernels.packed_model import PackedModel
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.memory_plan import packing_bytes, unpacked_bytes
from neurond.models.decoder_plan import DecoderPlan, NoPlan
from neurond.models.loader import load_model
from neurond.models.pack import pack_to_file
from neurond.models.packed_loader import pack_model, plan_packing
from neurond.sources.prepared import PreparedModel
from tests.fakes.model_cache import GEMMA3, real_model
from tests.fakes.planned_models import PLANNED, REFUSED, make_model
from tests.fakes.prepared_models import prepare_gguf, prepare_model, write_manifest
from tests.fakes.tiny_models import COMMON
from tests.integration.engine.test_loader import write_gguf

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Packer:
    """Packs what lies in folders for the kernels of this machine."""

    kernels: Kernels
    device: CpuDevice

    def first_load(
        self,
        folder: Path,
        manifest: PreparedModel,
        weight_format: WeightFormat,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Path | PackedModel | NoPlan:
        return pack_model(folder, manifest, weight_format, self.kernels, self.device, on_progress)

    def of_whole(
        self, folder: Path, manifest: PreparedModel, weight_format: WeightFormat, path: Path
    ) -> bytes:
        """Return what is packed of the model once all of it is in memory."""
        loaded = load_model(folder, manifest, "float32", self.device, lambda _: None)
        plan = plan_packing(loaded)
        assert isinstance(plan, DecoderPlan)
        name = manifest.weights_hash
        pack_to_file(plan, path, name, weight_format, self.kernels, lambda _: None)
        return path.read_bytes()

    def check(self, folder: Path, manifest: PreparedModel, weight_format: WeightFormat) -> Path:
        """Check that the first load writes the same bytes; return where."""
        made = self.first_load(folder, manifest, weight_format)
        assert isinstance(made, Path)
        whole = self.of_whole(folder, manifest, weight_format, folder / "whole" / made.name)
        assert made.read_bytes() == whole
        return made


@pytest.fixture
def packer(cpu) -> Packer:
    kernels = load_kernels()
    assert not isinstance(kernels, NoKernels), kernels.reason
    return Packer(kernels, cpu)


@pytest.mark.parametrize("weight_format", LAYER_AND_HEAD)
@pytest.mark.parametrize("name", PLANNED)
def test_the_file_is_that_of_the_whole_model(packer, tmp_path, name, weight_format):
    folder = tmp_path / name
    packer.check(folder, prepare_model(make_model(PLANNED[name]()), folder), weight_format)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_files_of_few_bits_are_packed_alike(packer, tmp_path, dtype):
    model = make_model(PLANNED["qwen3"](), dtype)
    packer.check(tmp_path / "few", prepare_model(model, tmp_path / "few"), "int8")


@pytest.mark.parametrize("quantisation", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_a_gguf_is_packed_alike(packer, tmp_path, quantisation):
    source = tmp_path / "source"
    source.mkdir()
    model = make_model(LlamaConfig(**COMMON, tie_word_embeddings=True))
    others = {"model.layers.1.mlp.down_proj.weight": "Q8_0"}
    write_gguf(source / "tiny.gguf", model, quantisation, others=others)
    manifest = prepare_gguf(source / "tiny.gguf", tmp_path / "model")
    made = packer.check(tmp_path / "model", manifest, "int4")
    formats = [layer.down.weight_format for layer in peek(made).layers]
    some_are_wide = quantisation in {"Q4_0", "Q4_1"}
    assert formats == ["int4", "int8" if some_are_wide else "int4", "int4"]


def test_a_real_gguf_of_many_quantisations_is_packed_alike(packer, tmp_path):
    source, manifest = real_model(GEMMA3)
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    packer.check(tmp_path, manifest, "int4")


def test_progress_is_that_of_packing(packer, tmp_path):
    told: list[float] = []
    manifest = prepare_model(make_model(PLANNED["llama"]()), tmp_path / "llama")
    packer.first_load(tmp_path / "llama", manifest, "int8", told.append)
    assert told == sorted(told)
    assert len(told) > 10
    assert told[-1] == 1.0


def test_where_no_file_can_be_written_memory_has_the_same(packer, tmp_path):
    manifest = prepare_model(make_model(PLANNED["llama"]()), tmp_path)
    (tmp_path / "packed").write_text("in the way")
    made = packer.first_load(tmp_path, manifest, "int8")
    assert isinstance(made, PackedModel)
    assert made.path is None
    path = packed_path(tmp_path / "whole", manifest.weights_hash, "int8", packer.kernels.layout)
    path.parent.parent.mkdir()
    whole = packer.of_whole(tmp_path, manifest, "int8", path)
    assert made.size_bytes == len(whole)


class SmallDevice(CpuDevice):
    """A CPU with so many bytes free."""

    def __init__(self, free_bytes: int) -> None:
        super().__init__(None)
        self._free_bytes = free_bytes

    def memory_info(self) -> MemoryInfo:
        return MemoryInfo(self._free_bytes, self._free_bytes)


def test_memory_for_one_layer_is_enough_and_asked_for(packer, tmp_path):
    model = make_model(LlamaConfig(**{**COMMON, "num_hidden_layers": 8}))
    manifest = prepare_model(model, tmp_path)
    enough = packing_bytes(manifest)
    path = Packer(packer.kernels, SmallDevice(enough)).first_load(tmp_path, manifest, "int8")
    assert isinstance(path, Path)
    path.unlink()
    for file in manifest.weights:
        (tmp_path / file.name).unlink()  # what is refused is not read
    small = Packer(packer.kernels, SmallDevice(enough - 1))
    with pytest.raises(OutOfMemory, match=rf"cannot pack .*: it takes {enough} bytes beside"):
        small.first_load(tmp_path, manifest, "int8")


def change(folder: Path, name: str, changed: torch.Tensor | None) -> PreparedModel:
    """Leave a tensor out of a tiny Llama's files, or put another in its place."""
    model = make_model(PLANNED["llama"]())
    prepare_model(model, folder)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if tensors.pop(name, None) is not None and changed is not None:
            tensors[name] = changed
        save_file(tensors, path, metadata={"format": "pt"})
    return write_manifest(folder, "safetensors", model.config)


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (None, rf"cannot load .*safetensors: it lacks 1 weights of the model, such as {DOWN}"),
        (torch.ones(3, 4), rf"cannot read {DOWN} from .*: it has shape \(3, 4\), config.json"),
    ],
)
def test_a_tensor_that_is_not_as_it_should_is_named(packer, tmp_path, changed, told):
    manifest = change(tmp_path, DOWN, changed)
    with pytest.raises(ModelLoadFailed, match=told):
        packer.first_load(tmp_path, manifest, "int8")
    assert not (tmp_path / "packed").exists()


GPT2 = GPT2Config(
    vocab_size=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        pytest.param(REFUSED["qwen3-moe"][0](), "layer 0 has mlp.experts.", id="experts"),
        pytest.param(GPT2, "its decoder is not an embedding and a list of layers", id="gpt2"),
    ],
)
def test_what_shows_without_weights_is_refused_before_they_are_read(
    packer, tmp_path, monkeypatch, config, told
):
    manifest = prepare_model(make_model(config), tmp_path)
    monkeypatch.setattr("neurond.models.packed_loader.load_into", None)
    found = packer.first_load(tmp_path, manifest, "int8")
    assert isinstance(found, NoPlan)
    assert found.reason.startswith(told)


PROGRAM = """
import sys
from pathlib import Path
from neurond.engine.device import open_device
from neurond.kernels.variants import load_kernels
from neurond.models.packed_loader import pack_model
from neurond.sources.prepared import read_manifest

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

device, kernels = open_device("cpu", 1, None), load_kernels()
for name in sys.argv[1:]:
    folder, seen = Path(name), []
    told = lambda _: seen.append(anonymous_bytes())
    assert pack_model(folder, read_manifest(folder), "int8", kernels, device, told).is_file()
    print(max(seen))
"""


def test_memory_does_not_grow_with_the_model(tmp_path):
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "vocab_size": 16_384}
    weights = {}
    for num_layers in (1, 17):
        config = LlamaConfig(**{**COMMON, **sizes, "num_hidden_layers": num_layers})
        folder = tmp_path / str(num_layers)
        manifest = prepare_model(make_model(config, torch.bfloat16), folder)
        weights[folder] = unpacked_bytes(manifest, "float32")
    program = [sys.executable, "-c", PROGRAM, *map(str, weights)]
    printed = subprocess.run(program, check=True, stdout=subprocess.PIPE, cwd=REPOSITORY).stdout
    small, large = map(int, printed.split())
    more = max(weights.values()) - min(weights.values())
    assert more > 200e6
    assert large - small < more / 5
