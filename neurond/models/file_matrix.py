"""Matrices of a checkpoint that stay in its file until something is computed with them.

A model made of them takes next to no memory: each product reads its matrix and lets it go. That is
slow, and right for what runs once: a plan is read and proven so, and packed piece by piece, however
large the model is.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

ReadRows = Callable[[int, int], torch.Tensor]
"""Rows [first, stop) of a matrix as float32 [stop - first, in_features], from any thread."""
SKETCH_ROWS: Final = 16
COMPARED_ROWS: Final = 256
"""At once."""
_ATEN: Final = torch.ops.aten
_SAME: Final = frozenset({_ATEN.detach.default, _ATEN.alias.default})


class FileMatrix(torch.Tensor):
    """A float32 matrix [rows, columns] on the CPU whose values are read when they are used.

    Detached it stays unread, as an embedding it reads the rows that it is asked for, and it is
    compared with another piece by piece; any other operation reads all of it, see also `read_rows`.
    It cannot be written to.
    """

    read_rows: ReadRows
    # As torch's documentation does it: nothing that is computed becomes such a matrix.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001

    def __new__(cls, shape: Iterable[int], read_rows: ReadRows) -> Self:
        """`read_rows` keeps what it reads from open as long as the matrix lives."""
        made: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 -- as above
            cls, tuple(shape), dtype=torch.float32, device=torch.device("cpu")
        )
        made.read_rows = read_rows
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # the superclass's has no arguments to see
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute `func` with what it takes of the values."""
        if func in _SAME:
            with torch.inference_mode(mode=False):
                return FileMatrix(args[0].shape, args[0].read_rows)
        if func is _ATEN.embedding.default and isinstance(args[0], FileMatrix):
            return read_numbered(args[0], args[1])
        if func is _ATEN.equal.default and args[0].shape == args[1].shape:
            return all(torch.equal(*rows) for rows in _side_by_side(*args))
        args, kwargs = tree_map_only(FileMatrix, _whole, (args, kwargs or {}))
        return func(*args, **kwargs)


class Sketched(TorchFunctionMode):
    """While it is entered, products with matrices in files are of their first rows, repeated.

    Their shapes and types are right, and their values are no zeros where the true ones are not.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute `func`, or sketch it."""
        use = _linear if func is functional.linear else func
        return use(*args, **(kwargs or {}))


def read_rows(matrix: torch.Tensor, first: int, stop: int) -> torch.Tensor:
    """Return rows [first, stop) of any matrix as contiguous float32."""
    if isinstance(matrix, FileMatrix):
        return matrix.read_rows(first, stop)
    return matrix.detach()[first:stop].float().contiguous()


def read_numbered(matrix: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return the rows of any matrix that have `numbers`, as float32 [*numbers.shape, columns]."""
    if not isinstance(matrix, FileMatrix):
        return matrix.detach()[numbers].float()
    wanted, places = torch.unique(numbers, return_inverse=True)
    behind_gaps = (torch.diff(wanted) != 1).nonzero().flatten() + 1
    runs = torch.tensor_split(wanted, behind_gaps)
    rows = [matrix.read_rows(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
    return torch.cat([torch.empty(0, matrix.shape[1]), *rows])[places]


def _side_by_side(
    one: torch.Tensor, other: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for first in range(0, len(one), COMPARED_ROWS):
        stop = min(first + COMPARED_ROWS, len(one))
        yield read_rows(one, first, stop), read_rows(other, first, stop)


def _whole(matrix: FileMatrix) -> torch.Tensor:
    # No inference tensor: a view would have to count its versions with the matrix, which is none.
    with torch.inference_mode(mode=False):
        return matrix.read_rows(0, len(matrix))


def _linear(
    input: torch.Tensor,  # noqa: A002 -- as torch names it
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    if not isinstance(weight, FileMatrix):
        return functional.linear(input, weight, bias)
    rows = weight.read_rows(0, min(SKETCH_ROWS, len(weight)))
    times = -(-len(weight) // len(rows))
    some = functional.linear(input, rows)
    whole = some.repeat(*[1] * (input.ndim - 1), times)[..., : len(weight)]
    return whole if bias is None else whole + bias
