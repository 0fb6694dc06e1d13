"""What is in the packages, and whether systemd takes the units."""

import subprocess
from pathlib import Path

import pytest

from neurond.kernels.csrc import build
from tests.packaging.conftest import BUILD_TIMEOUT_S, REPOSITORY, Packages, require

# The first test of the session builds the packages.
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S)


KERNELS = "/usr/lib/neurond/site-packages/neurond/kernels"


def run(
    *command: str, cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )


def test_every_spec_makes_a_binary_and_a_source_package(packages: Packages) -> None:
    assert sorted(packages.binary) == ["cortexd", "neurond", "neurond-runtime-cpu"]
    assert len(packages.source) == 3


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("cortexd", "/usr/bin/cortex"),
        ("cortexd", "/usr/lib/systemd/system/cortexd.service"),
        ("cortexd", "/etc/cortex/models.toml"),
        ("neurond", "/usr/bin/neuron"),
        ("neurond", "/usr/lib/systemd/system/neurond.service"),
        ("neurond", "/usr/lib/modules-load.d/neurond.conf"),
        ("neurond", "/etc/neuron/neuron.toml"),
        ("neurond", f"{KERNELS}/cortex_portable.so"),
    ],
)
def test_package_holds(packages: Packages, package: str, expected: str) -> None:
    listing = run("rpm", "-qpl", str(packages.binary[package])).stdout.splitlines()
    assert expected in listing


def test_node_package_holds_every_variant_of_the_kernels_and_no_sources(
    packages: Packages,
) -> None:
    listing = run("rpm", "-qpl", str(packages.binary["neurond"])).stdout.splitlines()
    libraries = [name for name in listing if name.endswith(".so")]
    assert libraries == sorted(f"{KERNELS}/cortex_{name}.so" for name in build.variant_names())
    assert not [name for name in listing if "csrc" in name]
    needs, offers = (
        run("rpm", "-qp", what, str(packages.binary["neurond"])).stdout
        for what in ("--requires", "--provides")
    )
    assert "libstdc++.so.6()" in needs
    assert "cortex_" not in offers


@pytest.mark.parametrize("package", ["cortexd", "neurond"])
def test_configuration_survives_updates(packages: Packages, package: str) -> None:
    query = "[%{FILENAMES} %{FILEFLAGS:fflags}\n]"
    files = run("rpm", "-qp", "--qf", query, str(packages.binary[package])).stdout.splitlines()
    flags_of = {name: flags for name, _, flags in (line.partition(" ") for line in files)}
    configs = {name: flags for name, flags in flags_of.items() if name.endswith(".toml")}
    assert all(name.startswith("/etc/") for name in configs)
    assert configs
    assert all("c" in flags and "n" in flags for flags in configs.values()), configs


@pytest.mark.parametrize("package", ["cortexd", "neurond"])
def test_source_package_builds_again(packages: Packages, tmp_path: Path, package: str) -> None:
    version = run("rpm", "-qp", "--qf", "%{VERSION}", str(packages.binary[package])).stdout
    (source,) = [p for p in packages.source if p.name.startswith(f"{package}-{version}-")]
    off_fedora = not run("rpm", "--eval", "%{?_unitdir}").stdout.strip()
    macros = ["--load", str(REPOSITORY / "rpm" / "macros.debian")] if off_fedora else []
    top = ["--define", f"_topdir {tmp_path}"]
    again = run("rpmbuild", "--rebuild", "--quiet", "--nodeps", *macros, *top, str(source))
    assert again.returncode == 0, again.stderr
    (binary,) = tmp_path.rglob("*.rpm")
    assert binary.name == packages.binary[package].name


def test_node_package_names_its_runtime(packages: Packages) -> None:
    needs = run("rpm", "-qpR", str(packages.binary["neurond"])).stdout
    offers = run("rpm", "-qp", "--provides", str(packages.binary["neurond-runtime-cpu"])).stdout
    assert "neurond-runtime(abi) = 1" in needs
    assert "neurond-runtime(abi) = 1" in offers


def test_private_libraries_are_neither_offered_nor_asked_for(packages: Packages) -> None:
    runtime = str(packages.binary["neurond-runtime-cpu"])
    offers, needs = run("rpm", "-qp", "--provides", runtime), run("rpm", "-qpR", runtime)
    assert offers.returncode == needs.returncode == 0
    assert "neurond-runtime-cpu" in offers.stdout
    assert "libtorch" not in offers.stdout + needs.stdout


def test_flavours_of_the_runtime_exclude_each_other(packages: Packages) -> None:
    runtime = str(packages.binary["neurond-runtime-cpu"])
    offers = run("rpm", "-qp", "--qf", "[%{PROVIDENAME}\n]", runtime).stdout.splitlines()
    conflicts = run("rpm", "-qp", "--conflicts", runtime).stdout.splitlines()
    assert conflicts == ["neurond-runtime"]
    assert "neurond-runtime" in offers


def test_rpmlint_finds_nothing(packages: Packages) -> None:
    require("rpmlint")
    targets = [str(packages.binary["cortexd"]), str(packages.binary["neurond"])]
    specs = [str(p) for p in sorted((REPOSITORY / "rpm").glob("*.spec"))]
    checked = run("rpmlint", "-c", str(REPOSITORY / "rpm" / "rpmlint.toml"), *targets, *specs)
    assert " 0 errors, 0 warnings" in checked.stdout, checked.stdout


@pytest.mark.parametrize("unit", ["cortexd.service", "neurond.service"])
def test_systemd_takes_the_unit(root: Path, tmp_path: Path, unit: str) -> None:
    require("systemd-analyze")
    text = (root / "usr/lib/systemd/system" / unit).read_text()
    # The program does not lie at its installed place here; everything else is checked as it is.
    lines = [line for line in text.splitlines() if not line.startswith("Documentation=")]
    local = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in lines]
    (tmp_path / unit).write_text("\n".join(local) + "\n")
    verified = run("systemd-analyze", "verify", str(tmp_path / unit))
    assert verified.returncode == 0, verified.stderr
    assert verified.stderr == ""
    exposure = run("systemd-analyze", "security", "--offline=true", str(tmp_path / unit))
    level = float(exposure.stdout.rsplit(":", 1)[1].split()[0])
    assert level < 2.5


@pytest.mark.parametrize("daemon", ["cortexd", "neurond"])
def test_users_are_made_from_sysusers(root: Path, tmp_path: Path, daemon: str) -> None:
    require("systemd-sysusers")
    (tmp_path / "etc").mkdir()
    text = (root / f"usr/lib/sysusers.d/{daemon}.conf").read_text()
    made = run("systemd-sysusers", f"--root={tmp_path}", "-", stdin=text)
    assert made.returncode == 0, made.stderr
    user = {"cortexd": "cortex", "neurond": "neuron"}[daemon]
    assert f"{user}:" in (tmp_path / "etc/passwd").read_text()
