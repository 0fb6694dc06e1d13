import platform
from pathlib import Path

import pytest

from neurond.kernels import library
from neurond.kernels.library import NoKernels, load_kernels


@pytest.fixture(autouse=True)
def forget():
    """Let each test look at the machine anew."""
    library.cpu_flags.cache_clear()
    library._load.cache_clear()
    yield
    library.cpu_flags.cache_clear()
    library._load.cache_clear()


def test_flags_are_those_of_the_first_processor(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nflags\t\t: other\n")
    monkeypatch.setattr(library, "CPUINFO", cpuinfo)
    assert library.cpu_flags() == {"fpu", "avx2", "fma"}


def test_a_host_that_tells_no_flags_gets_what_runs_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "CPUINFO", tmp_path / "absent")
    found = load_kernels("avx2")
    assert isinstance(found, NoKernels)
    assert "this processor lacks avx2" in found.reason


def test_what_is_not_built_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    found = load_kernels("portable")
    assert isinstance(found, NoKernels)
    assert "portable: it is not built; install g++" in found.reason


def test_a_file_that_is_no_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    (tmp_path / "cortex_portable.so").write_bytes(b"not a library")
    found = load_kernels("portable")
    assert isinstance(found, NoKernels)
    assert "it cannot be loaded" in found.reason


def test_every_variant_is_one_that_setup_builds():
    setup = (Path(library.__file__).parents[2] / "setup.py").read_text()
    assert all(f'"{name}": ' in setup for name in library.VARIANTS)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variant is of x86-64")
def test_the_best_variant_comes_first():
    assert next(iter(library.VARIANTS)) == "avx2"
