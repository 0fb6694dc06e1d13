"""Shared memory has one size and one content for all who attach to it, and no leak."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from cortex_core.errors import InternalError, ProtocolError
from cortex_core.ipc.segment import Segment


def test_attached_segment_shows_what_the_creator_wrote() -> None:
    owner = Segment.create("test", 4096)
    other = Segment.attach(os.dup(owner.fd))
    owner.buf[100:105] = b"hello"
    owner.words(8, 1)[0] = 2**63
    assert other.size_bytes == 4096
    assert bytes(other.buf[100:105]) == b"hello"
    assert other.words(8, 1)[0] == 2**63
    other.close()
    owner.close()


def test_close_is_idempotent_and_survives_views_that_are_still_held() -> None:
    segment = Segment.create("test", 4096)
    fd = segment.fd
    held = segment.buf[8:16]
    word = segment.words(8, 1)
    held[0] = 7
    segment.close()
    segment.close()
    assert held[0] == 7
    with pytest.raises(ValueError, match="released"):
        word[0]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_size_is_sealed() -> None:
    segment = Segment.create("test", 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, 8192)
    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, 100)
    segment.close()


def test_descriptor_does_not_leak_into_children() -> None:
    segment = Segment.create("test", 4096)
    assert not os.get_inheritable(segment.fd)
    segment.close()


@pytest.mark.parametrize("size_bytes", [0, -1])
def test_create_refuses_sizes_that_are_not_positive(size_bytes: int) -> None:
    with pytest.raises(InternalError, match="cannot create segment test"):
        Segment.create("test", size_bytes)


def test_create_says_what_the_kernel_refuses() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InternalError, match="cannot create segment test: "):
        Segment.create("test", 1 << 62)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_attach_refuses_what_is_no_memory() -> None:
    reader, writer = os.pipe()
    with pytest.raises(ProtocolError, match="cannot attach segment"):
        Segment.attach(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)  # it was taken over, so nobody else would have closed it
    os.close(writer)
    with pytest.raises(ProtocolError, match="Bad file descriptor"):
        Segment.attach(reader)


def test_a_segment_that_cannot_be_mapped_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_arguments: object) -> mmap.mmap:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    owner = Segment.create("test", 4096)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", full)
        with pytest.raises(ProtocolError, match="Cannot allocate memory"):
            Segment.attach(os.dup(owner.fd))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    owner.close()


def test_view_outside_the_segment_is_refused() -> None:
    segment = Segment.create("test", 64)
    with pytest.raises(InternalError, match="cannot view bytes"):
        segment.words(60, 1)
    with pytest.raises(InternalError, match="cannot view bytes"):
        segment.bytes_at(-8, 8)
    segment.close()
