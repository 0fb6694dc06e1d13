"""What weights are kept in where a profile says so, and where it does not."""

import msgspec
import pytest

from cortex_core.errors import InvalidRequest
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import Dtype
from neurond.kv_choice import choose_kv
from neurond.memory_plan import packed_bytes
from neurond.sources.layer_weights import LayerWeights
from neurond.sources.prepared import ImageTokens
from neurond.weight_choice import (
    DeviceKind,
    WeightChoice,
    choose_weights,
)
from tests.fakes.tokenizers_made import byte_level, prepared

MODEL = prepared(byte_level())


def choose(
    named: Dtype | None = None,
    *,
    kind: DeviceKind = "cpu",
    bits: float = 16,
    wide: float = 0,
    has_kernels: bool = True,
    computes_bfloat16: bool = True,
) -> WeightChoice:
    layers = LayerWeights(1 << 20, int((1 << 20) * bits / 8), int((1 << 20) * wide))
    model = msgspec.structs.replace(MODEL, layers=layers)
    return choose_weights(
        model,
        named,
        device=DeviceName(f"{kind}-0"),
        kind=kind,
        has_kernels=has_kernels,
        computes_bfloat16=computes_bfloat16,
    )


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (2.6, "int4"),
        (4.5, "int4"),
        (5.5, "int4"),
        (6.6, "int8"),
        (8.5, "int8"),
        (16, "bfloat16"),
        (32, "bfloat16"),
    ],
)
def test_a_cpu_keeps_about_the_bits_that_the_files_have(bits: float, dtype: Dtype) -> None:
    assert choose(bits=bits) == WeightChoice(dtype, fallback_dtype="float32")


def test_files_without_a_matrix_for_int4_are_kept_as_int8() -> None:
    assert choose(bits=5.4, wide=0.9) == WeightChoice("int4", fallback_dtype="float32")
    assert choose(bits=5.5, wide=1) == WeightChoice("int8", fallback_dtype="float32")


def test_without_kernels_a_cpu_computes_in_float32() -> None:
    assert choose(bits=4.5, has_kernels=False) == WeightChoice("float32")


@pytest.mark.parametrize("has_kernels", [True, False])
def test_what_is_named_is_kept_or_refused(*, has_kernels: bool) -> None:
    for named in ("int8", "int4", "float32"):
        assert choose(named, has_kernels=has_kernels) == WeightChoice(named)
    assert choose("bfloat16", has_kernels=has_kernels) == WeightChoice("bfloat16", "bfloat16")


def test_cuda_has_no_packed_weights() -> None:
    assert choose(kind="cuda", bits=4.5) == WeightChoice("bfloat16")
    assert choose("float32", kind="cuda") == WeightChoice("float32")
    with pytest.raises(InvalidRequest, match="int8 weights are for the device cpu") as caught:
        choose("int8", kind="cuda")
    assert caught.value.param == "profile.dtype"


def test_a_device_without_bfloat16_has_float16_unless_a_profile_names_it() -> None:
    assert choose(kind="cuda", computes_bfloat16=False) == WeightChoice("float16")
    assert choose("bfloat16", kind="cuda", computes_bfloat16=False) == WeightChoice("bfloat16")
    assert choose("float16", kind="cuda") == WeightChoice("float16")
    with pytest.raises(InvalidRequest, match="float16 weights are for CUDA devices"):
        choose("float16")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_encoders_are_in_float32_unless_a_profile_says_otherwise(kind: DeviceKind) -> None:
    encoder = msgspec.structs.replace(MODEL, capabilities=("embeddings",))

    def choose_for(named: Dtype | None) -> WeightChoice:
        device = DeviceName(f"{kind}-0")
        return choose_weights(encoder, named, device=device, kind=kind, has_kernels=True)

    assert choose_for(None) == WeightChoice("float32")
    assert choose_for("bfloat16") == WeightChoice("bfloat16")
    with pytest.raises(InvalidRequest, match="encoders are served in float32 or bfloat16"):
        choose_for("int8")


SEES = msgspec.structs.replace(MODEL, images=ImageTokens("<image>", "<image>", 5))


@pytest.mark.parametrize(("named", "dtype"), [(None, "float32"), ("bfloat16", "bfloat16")])
def test_a_model_that_takes_images_is_for_torch_on_a_cpu(named: Dtype | None, dtype: Dtype) -> None:
    choice = choose_weights(SEES, named, device=DeviceName("cpu"), kind="cpu", has_kernels=True)
    assert choice == WeightChoice(dtype)
    assert choose_kv(SEES, None, choice, device=DeviceName("cpu"), kind="cpu") is None


def test_a_model_whose_images_go_in_place_is_for_the_kernels() -> None:
    images = msgspec.structs.replace(SEES.images, in_place=True, tower_parameters=1000)
    model = msgspec.structs.replace(SEES, images=images)

    def choose_for(named: Dtype | None, *, has_kernels: bool = True) -> WeightChoice:
        return choose_weights(
            model, named, device=DeviceName("cpu"), kind="cpu", has_kernels=has_kernels
        )

    assert choose_for(None).fallback_dtype == "float32"
    assert choose_for(None).dtype in ("bfloat16", "int8", "int4")
    assert choose_for("int8") == WeightChoice("int8")
    assert choose_for("float32") == WeightChoice("float32")
    assert choose_for(None, has_kernels=False) == WeightChoice("float32")
    of_text = msgspec.structs.replace(SEES, images=None)
    for dtype in ("bfloat16", "int8", "int4"):
        assert packed_bytes(model, dtype) == packed_bytes(of_text, dtype) + 4 * 1000
        choice = WeightChoice(dtype)
        kv = choose_kv(model, None, choice, device=DeviceName("cpu"), kind="cpu")
        assert kv == choose_kv(of_text, None, choice, device=DeviceName("cpu"), kind="cpu")


def test_a_model_that_takes_images_has_no_weights_for_kernels() -> None:
    with pytest.raises(InvalidRequest, match="models that take images are served in float32"):
        choose_weights(SEES, "int8", device=DeviceName("cpu"), kind="cpu", has_kernels=True)
