"""What a model's keys and values are kept in on a device, and what that takes. Pure."""

from typing import Final

from cortex_core.errors import InvalidRequest
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import Dtype, KvDtype
from neurond.sources.prepared import PreparedModel
from neurond.weight_choice import DeviceKind, WeightChoice

DEFAULT_KV_DTYPE: Final[KvDtype] = "bfloat16"
"""With the CPU kernels."""
KEY_GROUP: Final = 32
"""Dimensions of an int8 key that share a scale; a value has one."""
SCALE_BYTES: Final = 2


def choose_kv(
    model: PreparedModel,
    named: KvDtype | None,
    weights: WeightChoice,
    *,
    device: DeviceName,
    kind: DeviceKind,
) -> KvDtype | None:
    """Return what the CPU kernels are to keep keys and values in; None leaves it to torch.

    Torch keeps them in what weights are in.

    Raises:
        InvalidRequest: the profile names something else than torch's.
    """
    if kind == "cpu" and weights.dtype != "float32" and model.has_plan:
        return named or DEFAULT_KV_DTYPE
    if named is not None and model.generates and named != weights.dtype:
        raise InvalidRequest(
            f"cannot load {model.model_id} on {device} with keys and values in {named}: torch "
            f"serves it, which keeps them in {weights.dtype} as the weights; leave kv_dtype out",
            param="profile.kv_dtype",
        )
    return None


def kv_bytes_per_token(model: PreparedModel, dtype: Dtype) -> int:
    """Return the bytes of keys and values that one token takes over all layers."""
    return model.num_layers * model.num_kv_heads * _head_bytes(model.head_dim, dtype)


def _head_bytes(head_dim: int, dtype: Dtype) -> int:
    """Return the bytes of a key and a value of one head."""
    if dtype == "int8":
        return 2 * head_dim + SCALE_BYTES * (-(-head_dim // KEY_GROUP) + 1)
    return 2 * head_dim * (4 if dtype == "float32" else 2)
