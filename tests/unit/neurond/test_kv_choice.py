"""What keys and values are kept in where a profile says so, and where it does not."""

import msgspec
import pytest

from cortex_core.errors import InvalidRequest
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import Dtype, KvDtype
from neurond.kv_choice import DEFAULT_KV_DTYPE, choose_kv, kv_bytes_per_token
from neurond.weight_choice import DeviceKind, WeightChoice
from tests.fakes.tokenizers_made import byte_level, prepared

MODEL = prepared(byte_level())


def choose(
    named: KvDtype | None, weights: Dtype = "bfloat16", kind: DeviceKind = "cpu"
) -> KvDtype | None:
    device = DeviceName(f"{kind}-0")
    return choose_kv(MODEL, named, WeightChoice(weights), device=device, kind=kind)


@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
def test_the_kernels_keep_what_is_named_whatever_the_weights(weights: Dtype) -> None:
    assert choose("int8", weights) == "int8"
    assert choose("bfloat16", weights) == "bfloat16"
    assert choose(None, weights) == DEFAULT_KV_DTYPE


@pytest.mark.parametrize(
    ("weights", "kind"), [("float32", "cpu"), ("bfloat16", "cuda"), ("float32", "cuda")]
)
def test_torch_keeps_them_as_weights_and_nothing_else(weights: Dtype, kind: DeviceKind) -> None:
    assert choose(None, weights, kind) is None
    with pytest.raises(InvalidRequest) as caught:
        choose("int8", weights, kind)
    assert caught.value.param == "profile.kv_dtype"
    assert f"keeps them in {weights} as the weights; leave kv_dtype out" in str(caught.value)


def test_what_torch_does_anyway_may_be_named() -> None:
    assert choose("bfloat16", "bfloat16", "cuda") is None
    with pytest.raises(InvalidRequest, match="keys and values in bfloat16"):
        choose("bfloat16", "float32", "cuda")


def test_int8_takes_a_byte_and_its_share_of_the_scales() -> None:
    sizes = {"num_layers": 30, "num_kv_heads": 3, "head_dim": 64}
    model = msgspec.structs.replace(MODEL, **sizes)
    numbers = 2 * 30 * 3 * 64
    assert kv_bytes_per_token(model, "float32") == 4 * numbers
    assert kv_bytes_per_token(model, "bfloat16") == 2 * numbers
    # Two groups of 32 in a key, one value, a scale of two bytes each.
    assert kv_bytes_per_token(model, "int8") == numbers + 30 * 3 * 2 * (2 + 1)
