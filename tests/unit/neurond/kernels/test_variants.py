import errno
import subprocess
import sys

import pytest

from neurond.kernels import variants
from neurond.kernels.csrc import build
from neurond.kernels.library import Kernels
from neurond.kernels.variants import NoKernels, load_kernels


@pytest.fixture(autouse=True)
def forget():
    """Let each test look at the machine anew."""
    variants.cpu_flags.cache_clear()
    variants.load_library.cache_clear()
    yield
    variants.cpu_flags.cache_clear()
    variants.load_library.cache_clear()


def test_flags_are_those_of_the_first_processor(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nflags\t\t: other\n")
    monkeypatch.setattr(variants, "CPUINFO", cpuinfo)
    assert variants.cpu_flags() == {"fpu", "avx2", "fma"}


def test_a_host_that_tells_no_flags_gets_what_runs_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "CPUINFO", tmp_path / "absent")
    found = load_kernels("avx2")
    assert isinstance(found, NoKernels)
    assert "this processor lacks avx2" in found.reason


def test_what_is_not_built_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "__file__", str(tmp_path / "variants.py"))
    found = load_kernels("portable")
    assert isinstance(found, NoKernels)
    assert "portable: it is not built; install g++" in found.reason


def test_a_file_that_is_no_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "__file__", str(tmp_path / "variants.py"))
    (tmp_path / "cortex_portable.so").write_bytes(b"not a library")
    found = load_kernels("portable")
    assert isinstance(found, NoKernels)
    assert "it cannot be loaded" in found.reason


def test_a_library_of_another_interface_or_other_results_is_named(monkeypatch):
    built = variants.abi.ABI
    monkeypatch.setattr(variants.abi, "ABI", built + 1)
    found = load_kernels("portable")
    assert isinstance(found, NoKernels)
    assert f"built with interface {built} instead of {built + 1}" in found.reason


@pytest.mark.parametrize("check", ["wrong_product", "wrong_attention", "wrong_gate"])
def test_a_library_that_computes_wrongly_gives_way_to_the_next(monkeypatch, caplog, check):
    monkeypatch.setattr(variants, "cpu_flags", lambda: variants.VARIANTS["avx2"])
    monkeypatch.setattr(
        variants, check, lambda kernels: "it errs" if kernels.variant == "avx2" else None
    )
    found = load_kernels()
    assert isinstance(found, Kernels)
    assert found.variant == "portable"
    assert "CPU kernels not trusted" in caplog.text


def test_a_library_that_the_system_refuses_gives_way_to_the_next(monkeypatch, caplog):
    declare = variants.abi.declare

    def declare_and_refuse(library, *functions):
        declare(library, *functions)
        if library.cortex_variant() == b"avx2":
            library.cortex_ask_permission = lambda: errno.EPERM

    monkeypatch.setattr(variants, "cpu_flags", lambda: variants.VARIANTS["avx2"])
    monkeypatch.setattr(variants.abi, "declare", declare_and_refuse)
    found = load_kernels()
    assert isinstance(found, Kernels)
    assert found.variant == "portable"
    assert "CPU kernels not permitted" in caplog.text
    refused = load_kernels("avx2")
    assert isinstance(refused, NoKernels)
    assert "does not let this process use its instructions: Operation not perm" in refused.reason


REFUSED_BY_A_SANDBOX = """
import ctypes, struct

ARCH_PRCTL, REQUEST_PERMISSION, EPERM = 158, 0x1023, 1
instructions = [  # code, jump if true, jump if false, operand
    (0x20, 0, 0, 0),  # the call's number
    (0x15, 0, 3, ARCH_PRCTL),
    (0x20, 0, 0, 16),  # its first argument
    (0x15, 0, 1, REQUEST_PERMISSION),
    (0x06, 0, 0, 0x50000 | EPERM),
    (0x06, 0, 0, 0x7FFF0000),  # any other call
]
code = b"".join(struct.pack("HBBI", *each) for each in instructions)
program = ctypes.create_string_buffer(code)
filter = struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(program))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0  # no new privileges
if prctl(22, 2, filter):  # seccomp
    print("no filter")
else:
    from neurond.kernels.variants import load_kernels

    print(load_kernels("amx").reason, "|", load_kernels().variant)
"""


def test_a_sandbox_without_tiles_gets_what_needs_none():
    if missing := variants.VARIANTS["amx"] - variants.cpu_flags():
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
    command = [sys.executable, "-c", REFUSED_BY_A_SANDBOX]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if said == "no filter":
        pytest.skip("this system lets no process refuse calls to itself")
    reason, _, used = said.partition(" | ")
    assert reason.endswith("use its instructions: Operation not permitted")
    assert used == "avx512"


def test_every_variant_is_one_that_setup_builds():
    assert list(variants.VARIANTS) == list(build.VARIANTS)
