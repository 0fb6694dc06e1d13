import pytest

from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.self_check import wrong_product
from neurond.kernels.variants import VARIANTS, NoKernels, load_kernels


class Faulty(Kernels):
    """A library that errs in the last element of products in one format, of so many rows."""

    def __init__(self, kernels: Kernels, weight_format: str, rows: int) -> None:
        super().__init__(kernels.variant, kernels.path, kernels._library)
        self._format, self._rows = abi.FORMATS[weight_format], rows

    def linear_apply(self, pool, linear, x):
        y = super().linear_apply(pool, linear, x)
        if linear.format == self._format and len(x) == self._rows:
            y[-1, -1] += 1
        return y


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request) -> Kernels:
    found = load_kernels(request.param)
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    return found


def test_every_variant_that_runs_here_is_right(kernels):
    assert wrong_product(kernels) is None


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("weight_format", abi.FORMATS)
def test_an_error_in_one_element_is_seen(kernels, weight_format, rows):
    wrong = wrong_product(Faulty(kernels, weight_format, rows))
    assert wrong == f"it computes {weight_format} products wrongly on this processor"
