"""Experts computed token by token: right by Triton's interpreter, and chosen where they help."""

import pytest
import torch

from neurond.engine.device import CpuDevice
from neurond.models import experts_choice
from neurond.models.experts_choice import choose_experts
from tests.fakes.tiny_models import make_tiny_model
from tests.fakes.triton_processes import run_module


def test_models_compute_what_they_do_without() -> None:
    told = run_module("tests.fakes.interpreted_experts", TRITON_INTERPRET="1")
    assert told["qwen3-moe"] < 1e-4
    assert told["gpt-oss-sinks"] < 1e-4  # transposed, and with biases
    # Two products a layer, of five tokens with two experts each.
    assert told["products"] == [10] * 12
    assert told["many tokens"] == 0
    assert told["products of many"] == []
    assert told["agrees"] == [True, True]


class Gpu(CpuDevice):
    """The host, but for its name to torch."""

    def __init__(self, major: int) -> None:
        super().__init__(None)
        self.compute_capability = (major, 0)


@pytest.mark.parametrize(
    ("name", "device", "dtype", "expected"),
    [
        ("qwen3-moe", Gpu(8), torch.bfloat16, 1),
        ("qwen3-moe", Gpu(12), torch.bfloat16, 1),
        ("qwen3-moe", Gpu(9), torch.float16, 1),
        ("qwen3-moe", Gpu(9), torch.bfloat16, 0),
        ("qwen3-moe", Gpu(10), torch.bfloat16, 0),
        ("qwen3-moe", CpuDevice(None), torch.bfloat16, 0),
        ("llama", Gpu(8), torch.bfloat16, 0),
    ],
)
def test_torch_computes_them_where_it_has_a_product(name, device, dtype, expected, monkeypatch):
    used = []
    monkeypatch.setattr(experts_choice, "load_token_experts", lambda dtype, device: used.append)
    choose_experts(make_tiny_model(name), dtype, device)
    assert len(used) == expected


def test_a_kernel_that_is_not_right_gives_way(monkeypatch, caplog):
    def wrong(dtype, device):
        raise RuntimeError("the kernel's results are wrong")

    model = make_tiny_model("qwen3-moe")
    before = model.get_experts_implementation()
    monkeypatch.setattr(experts_choice, "load_token_experts", wrong)
    choose_experts(model, torch.bfloat16, Gpu(8))
    assert model.get_experts_implementation() == before
    assert "experts wait for the device" in caplog.text

    def lost(dtype, device):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(experts_choice, "load_token_experts", lost)
    with pytest.raises(torch.AcceleratorError):
        choose_experts(model, torch.bfloat16, Gpu(8))
