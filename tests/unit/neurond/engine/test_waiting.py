"""The order of the waiting queue, against a sort."""

from array import array
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.batch import Row
from neurond.engine.blocks import BlockTable
from neurond.engine.sequence import Sequence, SequenceStatus
from neurond.engine.waiting import WaitingQueue


def new_sequence(
    arrival: int,
    priority: int,
    principal: str | None,
    started: bool,
    leader: Sequence | None = None,
    length: int = 1,
) -> Sequence:
    return Sequence(
        request_id=RequestId(str(arrival)),
        row=Row(arrival, 0, 0, SamplingParams(), array("i", [1] * length), length, None),
        table=BlockTable(16),
        stop_token_ids=frozenset(),
        max_length=length + 10,
        arrival=arrival,
        priority=priority,
        principal=principal,
        started=started,
        leader=leader,
    )


@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from((None, "a", "b")), st.booleans()), max_size=12
    ),
    running=st.dictionaries(st.sampled_from((None, "a", "b")), st.integers(0, 3)),
    data=st.data(),
)
def test_next_is_the_best_of_all_that_wait(kinds, running, data) -> None:
    running_of = Counter(running)
    seqs = [new_sequence(arrival, *kind) for arrival, kind in enumerate(kinds)]
    queue = WaitingQueue()
    for seq in data.draw(st.permutations(seqs)):
        queue.add(seq)
    while seqs:
        best = min(
            seqs,
            key=lambda seq: (
                -seq.priority,
                not seq.started,
                running_of[seq.principal],
                seq.arrival,
            ),
        )
        assert queue.next(running_of) is best
        assert len(queue) == len(seqs)
        queue.remove(best)
        seqs.remove(best)
        assert best not in queue
        running_of[best.principal] += data.draw(st.integers(0, 1))
    assert queue.next(running_of) is None


def test_next_passes_over_those_that_are_held() -> None:
    leader, follower, other = (new_sequence(arrival, 0, None, False) for arrival in range(3))
    leader.token_ids.extend(range(40))
    leader.row.num_prompt_tokens = 41
    follower.leader = leader
    queue = WaitingQueue()
    queue.add(follower)
    assert queue.next(Counter()) is None
    queue.add(other)
    assert queue.next(Counter()) is other
    leader.num_computed = 41
    assert queue.next(Counter()) is follower


@given(
    leaders=st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(SequenceStatus), st.booleans(), st.integers(0, 4)
        ),
        max_size=6,
    ),
    lowest=st.integers(0, 3),
    data=st.data(),
)
def test_free_are_those_that_are_not_held(leaders, lowest, data) -> None:
    """Leaders of any status, some with their prompt computed, and so many that they lead."""
    seqs: list[Sequence] = []
    for index, (priority, status, is_computed, num_led) in enumerate(leaders):
        leader = new_sequence(10 * index, priority, None, False, length=20)
        leader.status = status
        leader.num_computed = 20 if is_computed else 0
        seqs += [leader] if status is SequenceStatus.WAITING else []
        seqs += [
            new_sequence(10 * index + each, priority, None, False, leader)
            for each in range(1, num_led + 1)
        ]
    queue = WaitingQueue()
    for seq in seqs:
        queue.add(seq)
    for seq in data.draw(st.permutations(seqs)):
        free = {seq.row.stream for seq in seqs if seq.priority >= lowest and not seq.is_held}
        found = [seq.row.stream for seq in queue.free(lowest)]
        assert sorted(found) == sorted(free)
        queue.remove(seq)
        seqs.remove(seq)
    assert list(queue.free(lowest)) == []
