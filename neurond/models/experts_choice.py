"""How mixtures of experts are computed on a device."""

import importlib
import logging
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from cortex_core.logs import kv
from neurond.engine.device import Device

GROUPED_MAJORS: Final = (9, 10)
"""Compute capabilities for which torch has a grouped product, in bfloat16."""

log = logging.getLogger(__name__)


def choose_experts(model: PreTrainedModel, dtype: torch.dtype, device: Device) -> None:
    """Have the experts of `model`, if it has some, computed as suits `device`.

    Raises:
        torch.AcceleratorError: the device is lost.
    """
    capability = device.compute_capability
    if capability is None or not _has_experts(model):
        return
    if dtype == torch.bfloat16 and capability[0] in GROUPED_MAJORS:
        return
    try:
        use = load_token_experts(dtype, device.torch_device)
    except torch.AcceleratorError:
        raise
    except Exception as ex:  # noqa: BLE001 - whatever a compiler says, torch can serve
        reason = f"{type(ex).__name__}: {ex}".partition("\n")[0]
        log.warning("experts wait for the device: steps take longer", extra=kv(cause=reason))
        return
    use(model)


def load_token_experts(
    dtype: torch.dtype, device: torch.device
) -> Callable[[PreTrainedModel], None]:
    """Return what makes a model's experts use the Triton kernel, which is tried first.

    Raises:
        ImportError: there is no Triton.
        RuntimeError: the kernel errs on this device.
    """
    module: Any = importlib.import_module("neurond.models.token_experts")
    if not module.agrees(dtype, device):
        raise RuntimeError("the kernel's results are wrong")
    use: Callable[[PreTrainedModel], None] = module.use_token_experts
    return use


def _has_experts(model: nn.Module) -> bool:
    """Tell whether some module computes experts through transformers' interface."""
    return any(hasattr(module, "_apply_gate") for module in model.modules())
