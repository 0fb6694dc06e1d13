"""A backend that is wrong on a device, or does not start there, does not serve."""

import pytest
import torch

from neurond.attention.base import AttentionParams
from neurond.attention.reference import ReferenceBackend
from neurond.attention.trial import TYPICAL, Heads, why_not
from neurond.engine.device import CpuDevice
from neurond.engine.kv_shape import LayerShape
from neurond.models import torch_serving
from neurond.models.torch_serving import preferred_backend

CPU = torch.device("cpu")
LAYERS = [
    TYPICAL,
    Heads(6, LayerShape(2, 16, 16), AttentionParams(0.3, 6, 1.5, torch.linspace(-2, 3, 6))),
]


class Wrong(ReferenceBackend):
    """Gives the first sequence what is the second's."""

    def plan(self, batch):
        plan = super().plan(batch)
        attend = plan.attend
        plan.attend = lambda query, *rest: attend(query, *rest).flip(0)
        return plan


class Refused(ReferenceBackend):
    def plan(self, batch):
        raise RuntimeError("cannot find Python.h\nmore")


class Lost(ReferenceBackend):
    def plan(self, batch):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class OldGpu(CpuDevice):
    compute_capability = (7, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_right_serves(dtype):
    assert why_not(ReferenceBackend(), LAYERS, dtype, CPU) is None


def test_what_is_wrong_or_does_not_start_says_why():
    reason = why_not(Wrong(), LAYERS, torch.float32, CPU)
    assert reason is not None
    assert reason.startswith("its results are wrong for 32 heads of")
    refused = why_not(Refused(), LAYERS, torch.float32, CPU)
    assert refused == "RuntimeError: cannot find Python.h"
    with pytest.raises(torch.AcceleratorError):
        why_not(Lost(), LAYERS, torch.float32, CPU)


@pytest.mark.parametrize("kernels", [Wrong, Refused])
def test_what_is_not_trusted_gives_way(kernels, monkeypatch, caplog):
    monkeypatch.setattr(torch_serving, "load_paged_decodes", lambda others: kernels())
    backend = preferred_backend(OldGpu(None), torch.float16, LAYERS)
    assert type(backend) is ReferenceBackend
    assert "serving without Triton's kernels" in caplog.text


def test_what_is_right_is_taken(monkeypatch):
    class Right(ReferenceBackend):
        name = "triton"

    monkeypatch.setattr(torch_serving, "load_paged_decodes", lambda others: Right())
    assert preferred_backend(OldGpu(None), torch.float16, LAYERS).name == "triton"
    uneven = [Heads(6, LayerShape(2, 16, 8), AttentionParams(0.3))]
    assert type(preferred_backend(OldGpu(None), torch.float16, uneven)) is ReferenceBackend
    assert type(preferred_backend(CpuDevice(None), torch.float32)) is ReferenceBackend


def test_without_triton_others_serve(monkeypatch):
    def absent(others):
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(torch_serving, "load_paged_decodes", absent)
    assert type(preferred_backend(OldGpu(None), torch.float16)) is ReferenceBackend
