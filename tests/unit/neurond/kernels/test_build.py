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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one variant")
def test_a_variant_that_the_compiler_does_not_know_is_left_out_with_a_word(tmp_path, monkeypatch):
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        'for each; do [ "$each" = -mamx-tile ] && echo "unknown option" >&2 && exit 1; done\n'
        '[ "$1" = --version ] || echo "$@" > "$each"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    shutil.copy(CHECKOUT / "setup.py", tmp_path)
    shutil.copytree(build.CSRC, tmp_path / "neurond" / "kernels" / "csrc")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "built"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    made = {path.stem for path in (tmp_path / "built").rglob("*.so")}
    assert made == {"cortex_avx512", "cortex_avx2", "cortex_portable"}
    assert "cannot compile neurond.kernels.cortex_amx" in ran.stdout + ran.stderr
