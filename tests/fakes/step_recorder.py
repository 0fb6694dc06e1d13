"""Recording a step without a GPU: its operations, with the tensors that they were given.

As in a CUDA graph, what is replayed is neither Python nor anything that the host knew: each
operation computes anew on the memory it had, and its result goes where it went the first time.
Reading a tensor back cannot be recorded.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neurond.engine.decode_graphs import NotRecordable
from tests.fakes import flash_attn_checked

READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)


class FakeRecorder:
    """See `neurond.engine.decode_graphs.Recorder`. Counts what is recorded and replayed."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_replayed = 0

    def record(self, compute) -> "FakeGraph":
        self.num_recorded += 1
        operations = Operations()
        with operations:
            output = compute()
        return FakeGraph(self, operations.recorded, output)


class FakeGraph:
    def __init__(self, recorder: FakeRecorder, operations: list, output: torch.Tensor) -> None:
        self._recorder = recorder
        self._operations = operations
        self.output = output

    def replay(self) -> None:
        self._recorder.num_replayed += 1
        for operation, args, kwargs, result in self._operations:
            found = operation(*args, **kwargs)
            if operation._schema.is_mutable:
                continue
            given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
            for former, new in zip(tensors(result), tensors(found), strict=True):
                if former.untyped_storage().data_ptr() not in given:
                    former.copy_(new)


class Operations(TorchDispatchMode):
    """Notes each operation, its arguments and its result, which stay alive with it."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READS:
            raise NotRecordable("a tensor is read back")
        result = func(*args, **(kwargs or {}))
        self.recorded.append((func, args, kwargs or {}, result))
        return result


def tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@torch.library.custom_op("cortex_tests::with_kvcache", mutates_args=())
def _with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    scale: float,
    window: list[int],
    softcap: float,
    num_splits: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    return flash_attn_checked.flash_attn_with_kvcache(
        q,
        k_cache,
        v_cache,
        cache_seqlens=cache_seqlens,
        block_table=block_table,
        softmax_scale=scale,
        causal=True,
        window_size=tuple(window),
        softcap=softcap,
        num_splits=num_splits,
        return_softmax_lse=True,
    )


def flash_attn_with_kvcache(q, k_cache, v_cache, *, softmax_scale, window_size, **options):
    """The checked function as one operation, as flash-attn's is: what it reads is its own."""
    assert options["causal"]
    assert options["return_softmax_lse"]
    return _with_kvcache(
        q,
        k_cache,
        v_cache,
        options["cache_seqlens"],
        options["block_table"],
        softmax_scale,
        list(window_size),
        options["softcap"],
        options["num_splits"],
    )
