"""Who gives way, and that nobody does without need."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.ids import DeviceName, ReplicaId
from cortexd.fleet.eviction import Candidate, EvictionPolicy

GPU = DeviceName("cuda-0")


def candidate(name: str, mb: int, *, used: float = 0.0, residency: int = 100) -> Candidate:
    return Candidate(ReplicaId(name), residency, used, {GPU: mb})


def names(strategy: str, lacking: int, *candidates: Candidate) -> list[str] | None:
    policy = EvictionPolicy(strategy)
    chosen = policy.victims(candidates, lacking_mb={GPU: lacking})
    return None if chosen is None else [c.id for c in chosen]


def test_lru_takes_the_longest_unused() -> None:
    old, new = candidate("old", 10, used=1.0), candidate("new", 10, used=2.0, residency=1)
    assert names("lru", 5, new, old) == ["old"]


def test_priority_takes_the_lowest_class_first() -> None:
    old, low = candidate("old", 10, used=1.0), candidate("low", 10, used=2.0, residency=1)
    assert names("priority", 5, old, low) == ["low"]


def test_nobody_goes_who_is_not_needed() -> None:
    small, large = candidate("small", 2, used=1.0), candidate("large", 10, used=2.0)
    assert names("lru", 10, small, large) == ["large"]


def test_nobody_goes_in_vain() -> None:
    assert names("lru", 30, candidate("a", 10), candidate("b", 10)) is None


def test_classes_displace_their_own_and_below() -> None:
    policy = EvictionPolicy("priority")
    allowed = [policy.may_displace(victim=v, own=100) for v in (50, 100, 101)]
    assert allowed == [True, True, False]
    assert EvictionPolicy("lru").may_displace(victim=1000, own=1)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 9)), max_size=8),
    lacking=st.integers(0, 200),
)
def test_victims_are_enough_and_each_is_needed(
    sizes: list[tuple[int, float]], lacking: int
) -> None:
    candidates = [candidate(f"r{n}", mb, used=used) for n, (mb, used) in enumerate(sizes)]
    chosen = EvictionPolicy("lru").victims(candidates, lacking_mb={GPU: lacking})
    total = sum(mb for mb, _ in sizes)
    if chosen is None:
        assert total < lacking
        return
    freed = sum(c.held_mb[GPU] for c in chosen)
    assert freed >= lacking
    assert all(freed - c.held_mb[GPU] < lacking for c in chosen)
