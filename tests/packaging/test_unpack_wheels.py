"""Wheels in the packages are unpacked without pip: what lands where, and what is left out."""

import importlib.util
import stat
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType
from zipfile import ZipFile, ZipInfo

import pytest

from tests.packaging.conftest import REPOSITORY


@pytest.fixture(scope="module")
def unpacker() -> ModuleType:
    path = REPOSITORY / "rpm" / "unpack_wheels.py"
    spec = importlib.util.spec_from_file_location("unpack_wheels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, *names: str, name: str = "x-1-py3-none-any.whl") -> Path:
    """A wheel with these files, each holding its own name; `bin/` in a name makes a program."""
    path = folder / name
    with ZipFile(path, "w") as archive:
        for file in names:
            entry = ZipInfo(file)
            entry.external_attr = (0o775 if "bin/" in file else 0o664) << 16
            archive.writestr(entry, file)
    return path


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_libraries_land_in_the_folder_and_the_rest_is_left_out(
    unpacker: ModuleType, tmp_path: Path
) -> None:
    names = ["x/__init__.py", "x-1.dist-info/METADATA", "x-1.data/platlib/x/fast.so"]
    left_out = ["x-1.data/scripts/x", "x-1.data/data/share/man/x.1", "x-1.data/headers/x.h"]
    out = tmp_path / "site"
    assert unpacker.main([str(out), str(wheel(tmp_path, *names, *left_out))]) == 0
    assert files(out) == {"x/__init__.py", "x-1.dist-info/METADATA", "x/fast.so"}
    assert (out / "x/fast.so").read_text() == "x-1.data/platlib/x/fast.so"


def test_programs_stay_programs_whatever_the_umask(unpacker: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "site"
    unpacker.unpack(wheel(tmp_path, "x/bin/helper", "x/__init__.py"), out)
    assert stat.S_IMODE((out / "x/bin/helper").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "x/__init__.py").stat().st_mode) == 0o644


@pytest.mark.parametrize("name", ["../out.py", "x-1.data/purelib/../../out.py", "/out.py"])
def test_a_path_out_of_the_folder_is_refused(
    unpacker: ModuleType, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpacker.unpack(wheel(tmp_path, name), tmp_path / "site")


def test_two_wheels_with_one_file_are_refused(unpacker: ModuleType, tmp_path: Path) -> None:
    first = wheel(tmp_path, "x.py")
    second = wheel(tmp_path, "x.py", name="y-1-py3-none-any.whl")
    with pytest.raises(ValueError, match=r"y-1-.*x\.py is there from another wheel"):
        unpacker.main([str(tmp_path / "site"), str(first), str(second)])


def test_directories_and_roots_have_no_place_of_their_own(unpacker: ModuleType) -> None:
    assert unpacker.place_of(PurePosixPath("x-1.data/purelib")) is None
    assert unpacker.place_of(PurePosixPath("x/y.py")) == PurePosixPath("x/y.py")


def test_no_wheel_is_a_wrong_command_line(
    unpacker: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unpacker.main([sys.prefix]) == 2
    assert "usage:" in capsys.readouterr().err
