"""The packages, built once, and the root they are unpacked into."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Packages:
    """Built RPMs: binary ones by name, and all the source ones."""

    binary: dict[str, Path]
    source: list[Path]


def require(*programs: str) -> None:
    """Skip where a program of the distribution is missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"needs {', '.join(missing)} (Debian: apt-get install rpm rpmlint systemd cpio)"
        )


def _name(package: Path) -> str:
    query = ["rpm", "-qp", "--qf", "%{NAME}", str(package)]
    return subprocess.run(
        query, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=True
    ).stdout


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Every spec, built by the script that `make rpm` calls."""
    require("rpmbuild")
    out = tmp_path_factory.mktemp("rpm")
    built = subprocess.run(
        [str(REPOSITORY / "rpm" / "build.sh"), str(out)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    found = list(out.rglob("*.rpm"))
    return Packages(
        binary={_name(p): p for p in found if not p.name.endswith(".src.rpm")},
        source=[p for p in found if p.name.endswith(".src.rpm")],
    )


@pytest.fixture(scope="session")
def root(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages unpacked, as an installation would lay them out."""
    require("rpm2cpio", "cpio")
    folder = tmp_path_factory.mktemp("root")
    for package in packages.binary.values():
        unpacked = subprocess.run(
            f"rpm2cpio {package} | cpio --extract --make-directories --quiet",
            shell=True,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        assert unpacked.returncode == 0, unpacked.stderr
    return folder
