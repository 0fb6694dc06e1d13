"""Compiles the row functions as a variant of the kernels has them, and calls them on arrays."""

import ctypes
import os
import subprocess
import tempfile
from ctypes import c_int, c_void_p
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neurond.kernels import abi
from neurond.kernels.csrc.build import CSRC, FLAGS, VARIANTS
from neurond.kernels.library import VariantName
from neurond.kernels.memory import address_of

SOURCES: Final = (Path(__file__).parent / "row_ops.cpp", CSRC / "ops.cpp")

Floats = NDArray[np.float32]


class RowOps:
    """One variant's functions, each called by one thread for rows of its own.

    Other Python threads run meanwhile. `passes` repeats the same work.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def norm(self, x: Floats, weight: Floats, out: Floats, passes: int = 1) -> None:
        """Normalise rows [n, size] by their root mean square."""
        self._library.norm_rows(passes, *x.shape, *map(address_of, (x, weight, out)))

    def rotate(self, x: Floats, cos: Floats, sin: Floats, passes: int = 1) -> None:
        """Turn heads [n, heads, dim] in place, by tables [n, dim / 2]."""
        self._library.rotate_rows(passes, *x.shape, *map(address_of, (cos, sin, x)))

    def activate(self, name: str, x: Floats, out: Floats, passes: int = 1) -> None:
        """Activate the first half of rows [n, 2 size] and multiply it with the second."""
        code, (rows, size) = abi.ACTIVATIONS[name], out.shape
        self._library.activate_rows(passes, code, rows, size, address_of(x), address_of(out))


@cache
def row_ops(variant: VariantName) -> RowOps:
    """Return the functions of a variant that this processor has.

    Raises:
        OSError: there is no C++ compiler, or none for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "row_ops.so"
        command = [*os.environ.get("CXX", "c++").split(), *FLAGS, *VARIANTS[variant], f"-I{CSRC}"]
        try:
            subprocess.run([*command, "-shared", *SOURCES, "-o", target], check=True)
        except (OSError, subprocess.CalledProcessError) as ex:
            raise OSError(
                f"cannot compile {SOURCES[0]}: {ex}; install a C++ compiler, or name one in $CXX"
            ) from ex
        library = ctypes.CDLL(str(target))
    library.norm_rows.argtypes = [c_int, c_int, c_int, c_void_p, c_void_p, c_void_p]
    library.rotate_rows.argtypes = [c_int, c_int, c_int, c_int, c_void_p, c_void_p, c_void_p]
    library.activate_rows.argtypes = [c_int, c_int, c_int, c_int, c_void_p, c_void_p]
    for function in (library.norm_rows, library.rotate_rows, library.activate_rows):
        function.restype = None
    return RowOps(library)
