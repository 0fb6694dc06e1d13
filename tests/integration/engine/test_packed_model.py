"""Packed weights: what the kernels make of them, and what becomes of a file that is not whole."""

import errno
import os
import shutil
import subprocess
import sys
from array import array
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.host_step import sequence_logits
from bench.quality.oracle import reference_logits
from cortex_core.errors import InternalError, ModelLoadFailed, OutOfMemory
from neurond.kernels import abi
from neurond.kernels.file_memory import FileMemory
from neurond.kernels.library import Kernels, StepColumns
from neurond.kernels.memory import Buffer
from neurond.kernels.packed_file import LAYER_AND_HEAD, packed_path
from neurond.kernels.packed_model import PackedModel, open_packed
from neurond.models import partial_file
from neurond.models.decoder_plan import DecoderPlan, PlanLinear
from neurond.models.pack import pack_to_file, pack_to_memory
from neurond.models.plan_check import plan_decoder
from tests.fakes.planned_models import PLANNED, make_model
from tests.fakes.tiny_models import VOCAB_SIZE

HASH = "0123456789abcdef"
NUM_TOKENS = 40
MATRICES = ("qkv", "o", "gate_up", "down")
FORMATS = pytest.mark.parametrize("weight_format", LAYER_AND_HEAD)
CLOSE = {"bf16": 0.03, "int8": 0.1, "int4": 0.1}
"""Error by logits, both root mean square: the kernels also round what weights are multiplied by."""


@cache
def planned(name: str) -> DecoderPlan:
    plan = plan_decoder(make_model(PLANNED[name]()))
    assert isinstance(plan, DecoderPlan)
    return plan


@pytest.fixture(scope="module")
def plan() -> DecoderPlan:
    return planned("gemma3")


def pack(plan, folder: Path, kernels, weight_format="int8") -> PackedModel:
    path = packed_path(folder, HASH, weight_format, kernels.variant)
    pack_to_file(plan, path, HASH, weight_format, kernels, lambda _: None)
    packed = open_packed(path, kernels, HASH, weight_format)
    assert packed is not None
    return packed


def step_logits(kernels: Kernels, packed: PackedModel, ids: torch.Tensor) -> np.ndarray:
    """Return the logits [T, vocab_size] that one step computes for a prompt."""
    with kernels.pool(2) as pool:
        return sequence_logits(kernels, pool, packed, ids.tolist())


def with_packed_weights(plan: DecoderPlan, packed: PackedModel, kernels: Kernels) -> DecoderPlan:
    """Return the plan with the weights that the packed ones stand for."""

    def unpacked(linear: PlanLinear, found: abi.Linear) -> PlanLinear:
        return PlanLinear((torch.from_numpy(kernels.unpack_rows(found)),), (linear.bias(),))

    layers = tuple(
        replace(
            layer,
            **{name: unpacked(getattr(layer, name), getattr(found, name)) for name in MATRICES},
        )
        for layer, found in zip(plan.layers, packed.struct.layers[: len(plan.layers)], strict=True)
    )
    return replace(plan, layers=layers, head=unpacked(plan.head, packed.struct.head))


def some_ids() -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (NUM_TOKENS,), generator=torch.Generator().manual_seed(1))


@FORMATS
@pytest.mark.parametrize("name", PLANNED)
def test_kernels_compute_what_the_plan_says(kernels, name, weight_format):
    plan = planned(name)
    packed = pack_to_memory(plan, HASH, weight_format, kernels, lambda _: None)
    ids = some_ids()
    found = step_logits(kernels, packed, ids)
    rounded = with_packed_weights(plan, packed, kernels)
    expected = reference_logits(rounded, ids).numpy()
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert error < CLOSE[weight_format]


@FORMATS
def test_the_file_has_what_memory_would_have(tmp_path, kernels, plan, weight_format):
    told: list[float] = []
    path = packed_path(tmp_path, HASH, weight_format, kernels.variant)
    pack_to_file(plan, path, HASH, weight_format, kernels, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert list(path.parent.iterdir()) == [path]
    opened = open_packed(path, kernels, HASH, weight_format)
    assert opened.path == path
    assert opened.size_bytes == path.stat().st_size
    in_memory = pack_to_memory(plan, HASH, weight_format, kernels, lambda _: None)
    assert opened.decoder == in_memory.decoder
    np.testing.assert_array_equal(
        step_logits(kernels, opened, some_ids()), step_logits(kernels, in_memory, some_ids())
    )


def test_steps_compute_the_same_while_weights_are_copied(tmp_path, kernels, plan):
    packed = pack(plan, tmp_path, kernels)
    expected = step_logits(kernels, packed, some_ids())
    assert packed.own_piece()
    while packed.own_piece():
        pass
    np.testing.assert_array_equal(step_logits(kernels, packed, some_ids()), expected)


def test_weights_are_those_of_the_plan_to_half_a_step(tmp_path, kernels, plan):
    packed = pack(plan, tmp_path, kernels)
    layer, packed_layer = plan.layers[5], packed.struct.layers[5]
    for name in MATRICES:
        linear = getattr(layer, name)
        expected = linear.rows(0, linear.out_features).numpy()
        found = kernels.unpack_rows(getattr(packed_layer, name))
        step = np.abs(expected).max() / 127
        assert np.abs(found - expected).max() <= 0.51 * step
    assert packed_layer.rope == 1
    assert packed.context_tokens == 512


def test_wide_matrices_stay_int8_among_int4(kernels, plan):
    wide = {id(plan.layers[0].gate_up.weights[1]), id(plan.layers[1].o.weights[0])}
    marked = replace(
        plan, layers=tuple(layer.with_wide(lambda one: id(one) in wide) for layer in plan.layers)
    )
    first, second, third = (
        [getattr(layer, name).weight_format for name in MATRICES]
        for layer in pack_to_memory(marked, HASH, "int4", kernels, lambda _: None).decoder.layers[
            :3
        ]
    )
    assert first == ["int4", "int4", "int8", "int4"]
    assert second == ["int4", "int8", "int4", "int4"]
    assert third == ["int4"] * 4
    for weight_format in ("int8", "bf16"):
        packed = pack_to_memory(marked, HASH, weight_format, kernels, lambda _: None)
        assert packed.decoder.layers[0].gate_up.weight_format == weight_format


def test_a_token_or_position_out_of_range_is_refused_and_nothing_written(kernels, plan):
    packed = pack_to_memory(plan, HASH, "int8", kernels, lambda _: None)
    model, longest = packed.struct, packed.context_tokens
    pages = kernels.kv_pages(model, 1)
    logits = np.zeros((2, model.vocab_size), np.float32)
    with kernels.pool(1) as pool:
        scratch = Buffer(kernels.scratch_bytes(model, pool, 2, 1, 2))

        def step(token: int, position: int) -> None:
            columns = StepColumns.one_sequence(array("i", [1, token]))
            columns.positions = array("i", [0, position])
            kernels.step(pool, model, columns, pages, scratch, logits)

        for token, position in (
            *((VOCAB_SIZE, 1), (-1, 1), (2**31 - 1, 1)),
            *((2, longest), (2, -1), (2, 2**31 - 1), (2, -(2**31))),
        ):
            with pytest.raises(InternalError, match="not in the vocabulary of 320, or stands"):
                step(token, position)
        assert not logits.any()
        assert not any(layer.bytes.any() for layer in pages.layers)
        step(VOCAB_SIZE - 1, longest - 1)
        assert logits.any(axis=1).all()


def test_opening_needs_neither_torch_nor_transformers(tmp_path, kernels, plan):
    path = pack(plan, tmp_path, kernels).path
    program = f"""
import sys
from pathlib import Path
from neurond.kernels.variants import load_library
from neurond.kernels.packed_model import open_packed
kernels = load_library({kernels.variant!r}, Path({str(kernels.path)!r}))
assert open_packed(Path({str(path)!r}), kernels, {HASH!r}, "int8")
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def spoil(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[100] ^= 1
    path.write_bytes(blob)


def spoil_weights(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[-100] ^= 1
    path.write_bytes(blob)


def lose_a_page(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4096))


DAMAGES = [cut, grow, spoil, spoil_weights, lose_a_page, lambda path: os.truncate(path, 0)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_not_trusted_and_made_again(tmp_path, kernels, plan, damage):
    path = pack(plan, tmp_path, kernels).path
    damage(path)
    assert open_packed(path, kernels, HASH, "int8") is None
    assert pack(plan, tmp_path, kernels).path == path
    assert open_packed(path, kernels, HASH, "int8") is not None


def test_a_file_of_other_weights_or_kernels_is_not_trusted(tmp_path, kernels, plan, monkeypatch):
    path = pack(plan, tmp_path, kernels).path
    assert open_packed(path, kernels, "f" * 16, "int8") is None
    assert open_packed(path, kernels, HASH, "int4") is None
    assert open_packed(path.with_name("absent"), kernels, HASH, "int8") is None
    assert open_packed(path, kernels, HASH, "int8") is not None
    with monkeypatch.context() as other:
        other.setattr("neurond.kernels.packed_model.packing_of", lambda *_: 1)
        assert open_packed(path, kernels, HASH, "int8") is None
    monkeypatch.setattr("neurond.kernels.packed_model.plan_source", lambda: "transformers 4.0")
    assert open_packed(path, kernels, HASH, "int8") is None


def test_a_file_that_cannot_be_read_is_not_trusted(tmp_path, kernels, plan, monkeypatch, caplog):
    path = pack(plan, tmp_path, kernels).path

    def refused(_path: Path) -> FileMemory:
        raise OSError(errno.EIO, "its disk fails")

    monkeypatch.setattr("neurond.kernels.packed_model.FileMemory", refused)
    assert open_packed(path, kernels, HASH, "int8") is None
    assert "packed weights not trusted" in caplog.text


def test_weights_without_memory_are_no_damaged_file(tmp_path, kernels, plan, monkeypatch):
    path = pack(plan, tmp_path, kernels).path

    def refused(_path: Path) -> FileMemory:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("neurond.kernels.packed_model.FileMemory", refused)
    with pytest.raises(OutOfMemory, match="unload another model"):
        open_packed(path, kernels, HASH, "int8")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, kernels, plan, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ModelLoadFailed, match=r"cannot write .*: No space left on device; .*free"):
        pack(plan, tmp_path, kernels)
    assert not list((tmp_path / "packed").iterdir())


def test_room_for_others_is_kept(tmp_path, kernels, plan, monkeypatch):
    monkeypatch.setattr(partial_file, "HEADROOM_BYTES", shutil.disk_usage(tmp_path).total)
    with pytest.raises(ModelLoadFailed, match="No space left on device"):
        pack(plan, tmp_path, kernels)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, kernels, plan):
    (tmp_path / "packed").write_text("in the way")
    with pytest.raises(ModelLoadFailed, match="cannot write"):
        pack(plan, tmp_path, kernels)


def test_what_nobody_needs_any_more_is_removed(tmp_path, kernels, plan):
    folder = tmp_path / "packed"
    folder.mkdir()
    for name in ("f" * 16 + "-int8-avx2-v2.bin", f"{HASH}-int8-avx2-v0.bin", ".x.bin.1.partial"):
        (folder / name).write_text("old")
    other_format = pack(plan, tmp_path, kernels, "bf16").path
    path = pack(plan, tmp_path, kernels).path
    assert set(folder.iterdir()) == {path, other_format}


def test_another_writer_is_left_alone(tmp_path, kernels, plan):
    path = packed_path(tmp_path, HASH, "int8", kernels.variant)
    with partial_file.partial_file(path, 64):
        assert pack(plan, tmp_path, kernels).path == path
        assert len(list(path.parent.iterdir())) == 2
    assert open_packed(path, kernels, HASH, "int8") is None
