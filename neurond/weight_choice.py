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
"""Most bits per weight in the source that a format keeps: Q4 and Q5_0 files, Q8 files."""
SMALL_PARAMETERS: Final = 500_000_000
"""Models with fewer in their layers are kept in bfloat16: the kernels round what int8 and int4
weights are multiplied by to 8 bits, which small models are not sure enough of their words for."""


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
) -> WeightChoice:
    """Return what the profile names, else what loses little of what the model's files hold.

    Args:
        has_kernels: whether the device has CPU kernels, or may have: it has not opened yet.

    Raises:
        InvalidRequest: the device has no such weights.
    """
    if not model.generates:
        return _of_encoder(model, named)
    if kind == "cuda":
        if named in KERNELS_ONLY:
            raise InvalidRequest(
                f"cannot load {model.model_id} on {device}: {named} weights are for the device "
                "cpu; leave dtype out, or name the device",
                param="profile.dtype",
            )
        return WeightChoice(named or "bfloat16")
    if named is not None:
        return WeightChoice(named, "bfloat16" if named == "bfloat16" else None)
    return WeightChoice(_default(model), "float32") if has_kernels else WeightChoice("float32")


def _of_encoder(model: PreparedModel, named: Dtype | None) -> WeightChoice:
    """Float32 wherever it runs: vectors are compared with others, made on other devices."""
    if named in KERNELS_ONLY:
        raise InvalidRequest(
            f"cannot load {model.model_id} as {named}: encoders are served in float32 or bfloat16; "
            "leave dtype out",
            param="profile.dtype",
        )
    return WeightChoice(named or "float32")


def _default(model: PreparedModel) -> Dtype:
    bits = model.layers.bits_per_weight
    if model.layers.parameters < SMALL_PARAMETERS:
        return "bfloat16"
    if bits <= INT4_BITS:
        return "int4"
    return "int8" if bits <= INT8_BITS else "bfloat16"
