"""What tables say of the machine."""

import platform

import pytest

from bench.hardware import hardware


def test_a_kernel_is_named_without_what_its_distributor_adds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.18.44-made-here-v7")
    assert " 6.18.44, " in hardware()
    assert "made-here" not in hardware()
