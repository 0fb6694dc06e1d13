"""Memory that is made resident: which pages, and what becomes of what they hold."""

import errno
import mmap
import os

import pytest

from neurond.kernels.memory import Buffer
from neurond.kernels.populate import populate
from tests.fakes.resident_memory import resident_pages, skip_where_nothing_populates

PAGE = mmap.PAGESIZE


@pytest.fixture(autouse=True)
def _populating() -> None:
    skip_where_nothing_populates()


def test_the_pages_that_memory_lies_in_are_resident_and_keep_what_they_hold() -> None:
    buffer = Buffer(64 * PAGE)
    buffer.bytes[40 * PAGE] = 7

    populate(buffer.address + 40 * PAGE - 1, 2 * PAGE)

    assert all(resident_pages(buffer.address + 39 * PAGE, 3 * PAGE))
    assert buffer.bytes[40 * PAGE] == 7
    assert buffer.bytes.sum() == 7


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        populate(PAGE, PAGE)  # nothing is ever mapped at the first addresses
