"""What is kept, and what goes first."""

from hypothesis import given
from hypothesis import strategies as st

from cortexd.responses.retention import Held, Retention

sizes = st.lists(st.integers(0, 50), max_size=10)


@given(sizes=sizes, max_bytes=st.integers(0, 200))
def test_the_longest_unused_go_and_no_more_than_must(sizes: list[int], max_bytes: int) -> None:
    held = [Held(str(number), size) for number, size in enumerate(sizes)]
    dropped = Retention(ttl_s=1, max_bytes=max_bytes).surplus(sum(sizes), held)
    assert dropped == [one.id for one in held[: len(dropped)]]
    left = sizes[len(dropped) :]
    assert sum(left) <= max_bytes
    if dropped:
        assert sum(left) + sizes[len(dropped) - 1] > max_bytes


def test_what_alone_is_too_large_is_not_kept() -> None:
    retention = Retention(ttl_s=1, max_bytes=10)
    assert retention.keeps(10)
    assert not retention.keeps(11)


def test_the_last_moment_counts() -> None:
    assert Retention(ttl_s=30, max_bytes=1).unused_since(100) == 70
