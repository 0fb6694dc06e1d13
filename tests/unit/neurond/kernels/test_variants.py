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


def test_a_library_that_computes_wrongly_gives_way_to_the_next(monkeypatch, caplog):
    monkeypatch.setattr(variants, "cpu_flags", lambda: variants.VARIANTS["avx2"])
    monkeypatch.setattr(
        variants, "wrong_product", lambda kernels: "it errs" if kernels.variant == "avx2" else None
    )
    found = load_kernels()
    assert isinstance(found, Kernels)
    assert found.variant == "portable"
    assert "CPU kernels not trusted" in caplog.text


def test_every_variant_is_one_that_setup_builds():
    assert list(variants.VARIANTS) == list(build.VARIANTS)
