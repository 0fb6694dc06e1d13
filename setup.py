"""Builds the CPU kernels; everything that can be declared stands in pyproject.toml.

Each variant of `neurond/kernels/csrc` becomes a plain shared library beside the Python that loads
it. They are optional: where none can be compiled the package installs without them, and a node's
CPU device computes with torch.
"""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, str(Path(__file__).parent))
build = importlib.import_module("neurond.kernels.csrc.build")

CSRC: Final = Path("neurond/kernels/csrc")
KEPT: Final = Path("build/kernels")
"""An installation compiles what has changed since the last one."""


class BuildKernels(build_ext):
    """Compiles extensions of which each is a variant of the kernels."""

    def finalize_options(self) -> None:
        """Let variants be compiled side by side."""
        super().finalize_options()
        self.parallel = self.parallel or True

    def get_ext_filename(self, fullname: str) -> str:
        """Return the library's path; no Python version has a part in its name."""
        return f"{fullname.replace('.', '/')}.so"

    def copy_extensions_to_source(self) -> None:
        """Copy what was compiled into the source tree, and let nothing older stand there."""
        for ext in self.extensions:
            Path(self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()

    def build_extension(self, ext: Extension) -> None:
        """Compile one variant with a single run of the compiler.

        Raises:
            CompileError: there is no compiler, or it refuses; setuptools says so and goes on.
        """
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            build.compile_once(target, ext.extra_compile_args, KEPT)
        except (OSError, subprocess.CalledProcessError) as ex:
            raise CompileError(
                f"cannot compile {ext.name}: {ex}; a CPU will compute with another variant of the "
                "kernels, or with torch, slowly, where there is none, until a g++ that knows the "
                "variant's instructions is installed and cortex-fleet is installed again"
            ) from ex


class BuildWheel(bdist_wheel):
    """Names the wheel for the platform, and for any version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its binary interface and the platform.

        Without a library in it a wheel is for any: this is asked for when all is in place.
        """
        if not any(Path(self.bdist_dir).rglob("*.so")):
            return "py3", "none", "any"
        return "py3", "none", super().get_tag()[2]


def variants() -> list[Extension]:
    """Return the variants for the processors of this machine's kind."""
    return [
        Extension(
            f"neurond.kernels.cortex_{name}",
            sources=sorted(str(path) for path in CSRC.glob("*.cpp")),
            depends=[str(CSRC / "build.py"), *sorted(str(path) for path in CSRC.glob("*.h"))],
            extra_compile_args=[*build.FLAGS, *build.VARIANTS[name]],
            optional=True,
        )
        for name in build.variant_names()
    ]


setup(ext_modules=variants(), cmdclass={"build_ext": BuildKernels, "bdist_wheel": BuildWheel})
