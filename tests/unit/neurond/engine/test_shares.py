"""What each prompt gets of a step's tokens: in one step, and over many."""

from array import array
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.batch import Row
from neurond.engine.blocks import BlockTable
from neurond.engine.images import TokenRuns
from neurond.engine.sequence import Sequence
from neurond.engine.shares import PromptShares

BLOCK = 4


def prompt(
    arrival: int,
    length: int,
    computed: int = 0,
    priority: int = 0,
    principal: str | None = None,
    two_way: TokenRuns = (),
) -> Sequence:
    tokens = array("i", range(1000 * arrival, 1000 * arrival + length))
    seq = Sequence(
        request_id=RequestId(str(arrival)),
        row=Row(arrival, 0, 0, SamplingParams(), tokens, length, None, two_way=two_way),
        table=BlockTable(BLOCK),
        stop_token_ids=frozenset(),
        max_length=length + 10,
        arrival=arrival,
        priority=priority,
        principal=principal,
    )
    seq.num_computed = min(computed, length - 1)
    return seq


def advance(shares: PromptShares, prompts: list[Sequence], budget: int) -> Counter[Sequence]:
    """Deal and compute a step; prompts that are done leave the list."""
    got = Counter(dict(shares.deal(prompts, budget)))
    for seq, num_tokens in got.items():
        seq.num_computed += num_tokens
    prompts[:] = [seq for seq in prompts if seq.num_left]
    return got


@given(
    kinds=st.lists(
        st.tuples(
            st.integers(2, 40), st.integers(0, 30), st.integers(0, 2), st.sampled_from((None, "a"))
        ),
        min_size=1,
        max_size=8,
    ),
    budget=st.integers(0, 80),
)
def test_a_deal_keeps_to_its_budget_to_blocks_and_to_priorities(kinds, budget) -> None:
    prompts = sorted((prompt(i, *kind) for i, kind in enumerate(kinds)), key=lambda seq: seq.rank)
    chunks = PromptShares(BLOCK).deal(prompts, budget)
    dealt = sum(num_tokens for _, num_tokens in chunks)
    wanted = sum(seq.num_left for seq in prompts)
    assert min(budget, wanted) - BLOCK < dealt <= budget
    for seq, num_tokens in chunks:
        assert 0 < num_tokens <= seq.num_left
        if num_tokens < seq.num_left:
            assert (seq.num_computed + num_tokens) % BLOCK == 0 or len(chunks) == 1
    got = dict(chunks)
    lowest = min((seq.priority for seq in got), default=2)
    assert all(got[seq] == seq.num_left for seq in prompts if seq.priority > lowest)
    assert [seq for seq, _ in chunks] == [seq for seq in prompts if seq in got]


@given(st.integers(1, 60), st.integers(4, 100), st.integers(1, 40))
def test_a_principal_with_many_prompts_gets_no_more_than_one_with_one(many, length, budget) -> None:
    shares = PromptShares(BLOCK)
    prompts = [prompt(i, 100, principal="many") for i in range(many)]
    single = prompt(many, length, principal="one")
    prompts.append(single)
    total: Counter[str | None] = Counter()
    while single in prompts and len(prompts) > 1:
        for seq, num_tokens in advance(shares, prompts, budget).items():
            total[seq.principal] += num_tokens
    assert total["many"] <= total["one"] + 2 * BLOCK + budget


@given(st.integers(4, 60), st.integers(1, 40))
def test_a_short_prompt_does_not_wait_for_a_long_one(length, budget) -> None:
    shares = PromptShares(BLOCK)
    long, short = prompt(0, 200), prompt(1, length)
    prompts = [long, short]
    while short in prompts:
        advance(shares, prompts, budget)
    assert long.num_computed <= length + 2 * BLOCK + budget


@given(st.integers(1, 40), st.integers(8, 40))
def test_a_long_prompt_arrives_however_many_short_ones_come(length, budget) -> None:
    shares = PromptShares(BLOCK)
    long = prompt(0, 500)
    prompts = [long]
    dealt = 0
    for arrival in range(1, 30):
        prompts += [prompt(arrival, length + 1) for _ in range(1 + budget // (length + 1))]
        dealt += sum(advance(shares, prompts, budget).values())
    assert long.num_computed >= min(499, dealt / 2 - 2 * BLOCK)


def test_who_comes_later_owes_nothing_and_is_owed_nothing() -> None:
    shares = PromptShares(BLOCK)
    first, late = prompt(0, 500, principal="a"), prompt(1, 500, principal="b")
    prompts = [first]
    for _ in range(50):
        advance(shares, prompts, 8)
    prompts.append(late)
    for _ in range(10):
        advance(shares, prompts, 8)
    assert (first.num_computed, late.num_computed) == (440, 40)


@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 14), st.integers(1, 20), st.integers(0, 1)),
        min_size=1,
        max_size=6,
    ),
    budgets=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any),
)
def test_what_is_seen_both_ways_is_dealt_together_and_is_not_passed_for_ever(
    kinds, budgets
) -> None:
    """Prompts of text, an image, and text; with their priority."""
    shares = PromptShares(BLOCK)
    prompts = sorted(
        (
            prompt(
                arrival,
                before + image + behind,
                priority=priority,
                two_way=((before, before + image),),
            )
            for arrival, (before, image, behind, priority) in enumerate(kinds)
        ),
        key=lambda seq: seq.rank,
    )
    num_tokens = sum(len(seq.token_ids) for seq in prompts)
    for step in range(num_tokens * len(budgets)):
        budget = budgets[step % len(budgets)]
        got = advance(shares, prompts, budget)
        assert sum(got.values()) <= (max(budget, 14) if budget else 0)
        assert bool(got) == bool(budget)
        assert all(seq.cut(seq.num_computed) == seq.num_computed for seq in got)
        assert len(got) == 1 or sum(got.values()) <= budget
        if not prompts:
            return
    raise AssertionError("a prompt never ends")


@given(
    before=st.integers(0, 9),
    image=st.integers(2, 14),
    others=st.integers(1, 30),
    budget=st.integers(2, 30),
    is_text=st.booleans(),
)
def test_what_is_left_beside_a_higher_priority_adds_up(
    before, image, others, budget, is_text
) -> None:
    """However many of them come: a run, or text with less than a block left in each step."""
    others = min(others, budget - 1)
    shares = PromptShares(BLOCK)
    low = prompt(0, before + image + 1, two_way=() if is_text else ((before, before + image),))
    left_over = 0
    for arrival in range(1, 1000):
        prompts = [prompt(arrival, others, priority=1), low]
        got = advance(shares, prompts, budget)
        assert sum(got.values()) <= max(budget, image)
        if low not in prompts:
            return
        left_over += budget - others
        # Each of its chunks can wait for as many tokens as it has, and for the step after.
        assert left_over <= 2 * (before + image + 1) + (2 + before + image) * budget
    raise AssertionError("it is passed over for ever")


def test_who_was_passed_over_goes_first_as_soon_as_text_would_have_been_computed() -> None:
    shares = PromptShares(BLOCK)
    low = prompt(0, 13, two_way=((0, 12),))
    got = []
    for arrival in range(1, 7):
        prompts = [prompt(arrival, 9, priority=1), low]
        got.append(advance(shares, prompts, 12)[low])
    assert got == [0, 0, 0, 0, 12, 1], "3 tokens are left in each step"


def test_a_step_without_prompts_takes_nobodys_turn() -> None:
    shares = PromptShares(BLOCK)
    low = prompt(0, 13, two_way=((0, 12),))
    for arrival in range(1, 5):
        advance(shares, [prompt(arrival, 9, priority=1), low], 12)
    high = prompt(5, 9, priority=1)
    assert shares.deal([high, low], 0) == []
    assert shares.is_owing
    assert shares.deal([high, low], 12) == [(low, 12)]


def test_a_starved_priority_is_no_measure_for_those_above_it() -> None:
    shares = PromptShares(BLOCK)
    low = prompt(0, 10_000, priority=0, principal="low")
    first = prompt(1, 100_000, priority=1, principal="a")
    shares.deal([low], 100)
    for _ in range(50):
        advance(shares, [first, low], 100)
    second = prompt(2, 100_000, priority=1, principal="b")
    got: Counter[Sequence] = Counter()
    for _ in range(20):
        got += advance(shares, [first, second, low], 100)
    assert got[second] == got[first] == 1_000
    assert not got[low]
