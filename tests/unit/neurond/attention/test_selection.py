"""flash-attn 2 is chosen for what it serves, torch's where it is not there, else the reference."""

import pytest

from neurond.attention.selection import choose_backend

HEADS = [(64, 64), (128, 128)]


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_flash2_serves_ampere_and_later(capability):
    assert choose_backend(capability, "bfloat16", HEADS, has_flash2=True) == "flash-attn-2"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_without_it_torch_serves_all_but_softcaps(dtype):
    for has_softcap, expected in ((False, "torch-varlen"), (True, "torch-reference")):
        chosen = choose_backend((8, 9), dtype, HEADS, has_flash2=False, has_softcap=has_softcap)
        assert chosen == expected
    assert choose_backend((8, 9), dtype, HEADS, has_flash2=True, has_softcap=True) == "flash-attn-2"


@pytest.mark.parametrize(
    ("capability", "dtype", "heads", "has_flash2"),
    [
        (None, "bfloat16", HEADS, True),
        ((7, 5), "bfloat16", HEADS, True),
        ((9, 0), "float32", HEADS, True),
        ((9, 0), "bfloat16", [(64, 64), (512, 512)], True),
        ((9, 0), "bfloat16", [(192, 128)], True),
        ((9, 0), "bfloat16", [(60, 60)], True),
    ],
    ids=["cpu", "turing", "float32", "large heads", "uneven heads", "odd heads"],
)
def test_everything_else_gets_the_reference(capability, dtype, heads, has_flash2):
    chosen = choose_backend(capability, dtype, heads, has_flash2=has_flash2)
    assert chosen == "torch-reference"
    assert choose_backend(capability, dtype, heads, has_flash2=False) == "torch-reference"
