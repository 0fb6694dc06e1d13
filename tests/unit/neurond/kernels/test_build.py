import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neurond.kernels.csrc import build

CHECKOUT = Path(__file__).parents[4]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Stand in for the compiler; return how often it was asked for a file."""
    log, script = tmp_path / "calls", tmp_path / "compiler"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\necho >> {log}\n'
        'for last; do :; done\necho "$@" > "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return lambda: log.read_text().count("\n") if log.exists() else 0


def test_what_has_not_changed_is_compiled_once(tmp_path, calls):
    kept, target = tmp_path / "kept", tmp_path / "cortex_some.so"
    build.compile_once(target, ("-O3",), kept)
    once, made = calls(), target.read_bytes()
    assert once == len([path for path in build.sources() if path.suffix == ".cpp"]) + 1
    target.unlink()
    build.compile_once(target, ("-O3",), kept)
    assert calls() == once
    assert target.read_bytes() == made


def test_other_flags_are_compiled_anew_and_only_the_last_is_kept(tmp_path, calls):
    kept, target = tmp_path / "kept", tmp_path / "cortex_some.so"
    build.compile_once(target, ("-O3",), kept)
    once = calls()
    build.compile_once(target, ("-O2",), kept)
    assert calls() == 2 * once
    assert len(list(kept.iterdir())) == 1
    assert b"-O2" in target.read_bytes()


def test_no_compiler_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    with pytest.raises(OSError, match="absent"):
        build.compile_once(tmp_path / "cortex_some.so", (), tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_compiled_no_more_leaves_nothing_older_behind(tmp_path, calls, monkeypatch):
    kept, target = tmp_path / "kept", tmp_path / "cortex_some.so"
    build.compile_once(target, ("-O3",), kept)
    assert calls()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(subprocess.CalledProcessError):
        build.compile_once(target, ("-O3",), kept)
    assert not target.exists()


x86_64_only = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="other processors have one variant"
)


@pytest.fixture
def old_assembler(tmp_path, monkeypatch):
    """Stand in for a compiler whose assembler does not know AMX."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        'for each; do [ "$each" = -mamx-tile ] && echo "unknown option" >&2 && exit 1; done\n'
        '[ "$1" = --version ] || echo "$@" > "$each"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))


OTHERS = {"cortex_avx512", "cortex_avx2", "cortex_portable"}


@x86_64_only
@pytest.mark.usefixtures("old_assembler")
@pytest.mark.parametrize("place", ["--build-lib=built", "--inplace"])
def test_a_variant_that_the_compiler_does_not_know_is_left_out_with_a_word(tmp_path, place):
    shutil.copy(CHECKOUT / "setup.py", tmp_path)
    kernels = tmp_path / "neurond" / "kernels"
    shutil.copytree(build.CSRC, kernels / "csrc")
    (kernels / "cortex_amx.so").write_text("of an earlier installation")
    command = [sys.executable, "setup.py", "-q", "build_ext", place]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    root = kernels if place == "--inplace" else tmp_path / "built"
    assert {path.stem for path in root.rglob("*.so")} == OTHERS
    assert "cannot compile neurond.kernels.cortex_amx" in ran.stdout + ran.stderr


@x86_64_only
@pytest.mark.usefixtures("old_assembler")
def test_a_package_leaves_it_out_too(tmp_path):
    command = [sys.executable, str(build.CSRC / "build.py"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {path.stem for path in tmp_path.glob("*.so")} == OTHERS
    assert "cortex_amx.so is left out" in ran.stderr


@pytest.mark.parametrize("compiler", ["false", "/absent/c++"])
def test_a_package_without_kernels_is_not_made(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    command = [sys.executable, str(build.CSRC / "build.py"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert list(tmp_path.iterdir()) == []
