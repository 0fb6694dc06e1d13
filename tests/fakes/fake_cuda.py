"""CUDA tensors without CUDA: torch's fake tensors, indexed without a device guard.

`tensor[...]` asks for the device's driver before it dispatches, which a build of torch for the CPU
does not have. `WithoutDriver` takes such calls apart into operations that do not ask.
"""

from contextlib import ExitStack, contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten

CASTS = {
    torch.Tensor.float: torch.float32,
    torch.Tensor.double: torch.float64,
    torch.Tensor.long: torch.int64,
}


@contextmanager
def fake_cuda():
    """Make CUDA tensors possible, of shape and device but without data."""
    with ExitStack() as modes:
        modes.enter_context(WithoutDriver(modes.enter_context(FakeTensorMode())))
        yield


class WithoutDriver(TorchFunctionMode):
    """Computes from plain operations what would ask the driver; makes new host tensors fake."""

    def __init__(self, fake_mode: FakeTensorMode) -> None:
        super().__init__()
        self._fake_mode = fake_mode

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            return _get(*args)
        if func is torch.Tensor.__setitem__:
            return _set(*args)
        if func in CASTS:
            return args[0].to(CASTS[func])
        if func is torch.Tensor.contiguous:
            return args[0].clone(memory_format=torch.contiguous_format)
        if func is torch.Tensor.copy_:
            return aten.copy_(args[0], args[1])
        if func is torch.Tensor.pin_memory:
            return args[0]
        result = func(*args, **(kwargs or {}))
        if func is torch.tensor and not isinstance(result, FakeTensor):
            return self._fake_mode.from_tensor(result)
        return result


def _get(tensor, index):
    tensor, indices = _view(tensor, index)
    return aten.index(tensor, indices) if indices else tensor


def _set(tensor, index, value):
    view, indices = _view(tensor, index)
    if not isinstance(value, torch.Tensor):
        value = torch.full((), value, dtype=tensor.dtype, device=tensor.device)
    if indices:
        aten.index_put_(view, indices, value)
    else:
        aten.copy_(view, value)


def _view(tensor, index):
    """Apply all but tensors in `index`; return the view and the index that is left."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    dim, indices = 0, []
    for place, part in enumerate(parts):
        if part is None:
            tensor = tensor.unsqueeze(dim)
            dim += 1
        elif part is Ellipsis:
            dim = tensor.dim() - sum(later is not None for later in parts[place + 1 :])
        elif isinstance(part, slice):
            end = tensor.shape[dim] if part.stop is None else part.stop
            tensor = aten.slice(tensor, dim, part.start or 0, end, part.step or 1)
            dim += 1
        elif isinstance(part, torch.Tensor):
            indices += [None] * (dim - len(indices)) + [part]
            dim += 1
        else:
            tensor = tensor.select(dim, int(part))
    return tensor, indices
