"""What a model's weights are kept in on a device. Pure."""

from typing import Final, Literal

import msgspec

from cortex_core.errors import InvalidRequest
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import Dtype
from neurond.sources.prepared import PreparedModel

DeviceKind = Literal["cpu", "cuda"]
KERNELS_ONLY: Final[frozenset[Dtype]] = frozenset({"int8", "int4"})
"""What torch does not serve."""
INT4_BITS: Final = 5.5
INT8_BITS: Final = 9.0
"""Most bits per weight in the source that a format keeps: Q4 files with some wider matrices, Q8."""


class WeightChoice(msgspec.Struct, frozen=True):
    """What to load weights as.

    On a CPU, the kernels take all but float32, which is torch's.
    """

    dtype: Dtype
    fallback_dtype: Dtype | None = None
    """What torch serves instead where the kernels cannot; None refuses the load then."""


def choose_weights(
    model: PreparedModel,
    named: Dtype | None,
    *,
    device: DeviceName,
    kind: DeviceKind,
    has_kernels: bool,
    computes_bfloat16: bool = True,
) -> WeightChoice:
    """Return what the profile names, else what loses little of what the model's files hold.

    Args:
        has_kernels: whether the device has CPU kernels, or may have: it has not opened yet.
        computes_bfloat16: whether a CUDA device does, or has to emulate it.

    Raises:
        InvalidRequest: the device has no such weights.
    """
    if not model.generates:
        return _of_torch(model, named)
    if kind == "cuda":
        if named in KERNELS_ONLY:
            raise InvalidRequest(
                f"cannot load {model.model_id} on {device}: {named} weights are for the device "
                "cpu; leave dtype out, or name the device",
                param="profile.dtype",
            )
        return WeightChoice(named or ("bfloat16" if computes_bfloat16 else "float16"))
    if not model.has_plan:
        return _of_torch(model, named)
    if named == "float16":
        raise InvalidRequest(
            f"cannot load {model.model_id} on {device}: float16 weights are for CUDA devices; "
            "leave dtype out, or name bfloat16",
            param="profile.dtype",
        )
    if named is not None:
        return WeightChoice(named, "bfloat16" if named == "bfloat16" else None)
    return WeightChoice(_default(model), "float32") if has_kernels else WeightChoice("float32")


def _of_torch(model: PreparedModel, named: Dtype | None) -> WeightChoice:
    """Return what is kept of a model that torch computes on every device.

    An encoder's is float32 wherever it runs: vectors are compared with others, made elsewhere.
    """
    if named in KERNELS_ONLY or named == "float16":
        kind = "models that take images" if model.generates else "encoders"
        raise InvalidRequest(
            f"cannot load {model.model_id} as {named}: {kind} are served in float32 or bfloat16; "
            "leave dtype out",
            param="profile.dtype",
        )
    return WeightChoice(named or "float32")


def _default(model: PreparedModel) -> Dtype:
    layers, bits = model.layers, model.layers.bits_per_weight
    if bits <= INT4_BITS and layers.wide_parameters < layers.parameters:
        return "int4"
    return "int8" if bits <= INT8_BITS else "bfloat16"
