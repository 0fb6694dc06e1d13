"""The ledger: whatever breaks wherever, the client sees each event once and in order."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    PromptScored,
    ReasoningDelta,
    Started,
    TextDelta,
    TextPrompt,
    TokenLogprob,
    Usage,
)
from cortex_core.errors import (
    DeviceFailed,
    InvalidRequest,
    ModelNotLoaded,
    ModelUnloaded,
    NodeUnavailable,
    Overloaded,
    ProtocolError,
    QueueFull,
)
from cortex_core.ids import ModelId, RequestId
from cortexd.continuation import MAX_ATTEMPTS, Attempts, StreamLedger, is_replicas_fault
from tests.fakes.scripts import answer_events

REQUEST = GenerateRequest(
    RequestId("r1"), ModelId("fake:m"), TextPrompt("hi"), want_prompt_token_ids=True
)
GONE = NodeUnavailable("cannot go on: gone")
DEAD = DeviceFailed("cannot go on: the actor of device cuda-0 exited", retry_after_s=1.0)
FULL = QueueFull("cannot take the request: 256 are in flight on this device", retry_after_s=1.0)


def words_of(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, TextDelta)]


@given(
    words=st.lists(st.text(max_size=4), max_size=12),
    cuts=st.lists(st.integers(0, 15), max_size=MAX_ATTEMPTS - 1),
)
def test_every_event_is_seen_once(words: list[str], cuts: list[int]) -> None:
    ledger = StreamLedger(REQUEST)
    seen: list[Event] = []
    for cut in [*cuts, len(words) + 3]:
        for event in answer_events(ledger.next_request(), tuple(words))[:cut]:
            passed = ledger.take(event)
            if passed is not None:
                seen.append(passed)
        if seen and isinstance(seen[-1], Completed):
            break
        missing = ledger.completed_without_saying()
        if missing is not None:
            seen.append(missing)
            break
        assert ledger.goes_on_after(GONE, 0.0)
    assert words_of(seen) == words
    assert [type(event) for event in seen].count(Started) == 1
    assert isinstance(seen[-1], Completed)
    assert seen[-1].usage == Usage(3, len(words))
    assert ledger.exact


@given(sizes=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=4))
def test_scores_of_a_prompt_are_seen_once(sizes: list[list[int]]) -> None:
    """Each attempt gives them from the first one on, in pieces of its own, as far as it comes."""
    everything = tuple(TokenLogprob(number, str(number), 0.0) for number in range(10))
    ledger = StreamLedger(REQUEST)
    seen: list[TokenLogprob] = []
    for attempt in [*sizes, [3, 3, 4]]:
        ledger.next_request()
        at = 0
        for size in attempt:
            passed = ledger.take(PromptScored(0, everything[at : at + size]))
            at += size
            if isinstance(passed, PromptScored):
                seen += passed.scores
    assert tuple(seen) == everything


def test_other_weights_are_noticed() -> None:
    ledger = StreamLedger(REQUEST)
    started = answer_events(REQUEST)[0]
    assert isinstance(started, Started)
    ledger.take(started)
    ledger.take(msgspec.structs.replace(started, weights_id="other"))
    assert not ledger.exact


def test_usage_of_a_continued_stream_is_of_the_whole() -> None:
    ledger = StreamLedger(REQUEST)
    ledger.next_request()
    ledger.take(Started(RequestId("r1"), REQUEST.model, 9, cached_tokens=4, prompt_token_ids=(1,)))
    ledger.take(ReasoningDelta(0, "hm", seq=0, token_ids=(5, 6)))
    ledger.next_request()
    ledger.take(Started(RequestId("r1"), REQUEST.model, 11))
    ledger.take(TextDelta(0, "yes", seq=1, token_ids=(7,)))
    ledger.take(Finished(0, "stop", seq=2, token_ids=(8,)))
    last = ledger.take(Completed(Usage(11, 2)))
    assert last == Completed(Usage(9, 4, cached_tokens=4, reasoning_tokens=2))


def test_what_was_found_cached_after_the_start_is_used_too() -> None:
    ledger = StreamLedger(REQUEST)
    ledger.next_request()
    ledger.take(Started(RequestId("r1"), REQUEST.model, 9))
    assert ledger.used() == Usage(9, 0)
    ledger.take(Finished(0, "stop", seq=0, token_ids=(8,)))
    ledger.take(Completed(Usage(9, 1, cached_tokens=8)))
    assert ledger.used() == Usage(9, 1, cached_tokens=8)


def test_node_that_gives_no_prompt_ids_cannot_be_continued() -> None:
    ledger = StreamLedger(REQUEST)
    ledger.next_request()
    ledger.take(Started(RequestId("r1"), REQUEST.model, 1))
    assert ledger.goes_on_after(GONE, 0.0)
    ledger.take(TextDelta(0, "a", seq=0, token_ids=(1,)))
    assert not ledger.goes_on_after(GONE, 0.0)


def test_attempts_count_only_while_the_stream_does_not_get_on() -> None:
    ledger = StreamLedger(REQUEST)
    for token in range(3 * MAX_ATTEMPTS):
        ledger.next_request()
        ledger.take(Started(RequestId("r1"), REQUEST.model, 1, prompt_token_ids=(1,)))
        ledger.take(TextDelta(0, "a", seq=token, token_ids=(1,)))
        assert ledger.goes_on_after(GONE, 0.0)
    for _ in range(MAX_ATTEMPTS - 1):
        ledger.next_request()
        assert ledger.goes_on_after(GONE, 0.0)
    ledger.next_request()
    assert not ledger.goes_on_after(GONE, 0.0)


@pytest.mark.parametrize(("got_on", "most"), [(False, 2), (True, 3)])
def test_few_devices_that_died_under_a_request_are_all_it_gets(got_on: bool, most: int) -> None:
    attempts = Attempts()
    assert attempts.failed(DEAD, 0.0, got_on=got_on)
    assert attempts.as_told(DEAD) is DEAD
    assert attempts.failed(DEAD, 0.0, began=False)
    for _ in range(most - 2):
        assert attempts.failed(DEAD, 0.0, got_on=got_on)
    assert not attempts.failed(DEAD, 0.0, got_on=got_on)
    assert attempts.as_told(GONE) is GONE
    told = attempts.as_told(DEAD)
    assert isinstance(told, DeviceFailed)
    assert f"{most} devices died" in told.message
    assert DEAD.message in told.message
    assert told.retry_after_s is None


def test_a_node_without_room_costs_no_attempt_and_its_word_outlasts_the_wait() -> None:
    attempts = Attempts()
    assert attempts.failed(GONE, 9.0)
    for second in range(3 * MAX_ATTEMPTS):
        assert attempts.failed(FULL, 10.0 + second)
    assert attempts.waited_s == 3 * MAX_ATTEMPTS - 1
    too_long, no_room_here = Overloaded("waited too long"), QueueFull("cannot queue: full")
    assert attempts.not_placed(too_long) is FULL
    assert attempts.not_placed(no_room_here) is no_room_here
    assert all(attempts.failed(GONE, 100.0) for _ in range(MAX_ATTEMPTS - 2))
    assert not attempts.failed(GONE, 100.0)


def test_the_wait_for_room_begins_anew_with_each_node_that_took_the_request() -> None:
    attempts = Attempts()
    attempts.failed(FULL, 10.0)
    attempts.failed(GONE, 20.0)
    assert attempts.waited_s == 0.0
    too_long = Overloaded("waited too long")
    assert attempts.not_placed(too_long) is too_long
    attempts.failed(FULL, 30.0)
    attempts.failed(FULL, 31.0)
    assert attempts.waited_s == 1.0
    attempts.failed(FULL, 50.0, got_on=True)
    assert attempts.waited_s == 0.0


def test_what_an_operator_unloaded_does_not_go_on_elsewhere() -> None:
    ledger = StreamLedger(REQUEST)
    ledger.next_request()
    assert ledger.goes_on_after(ModelNotLoaded("cannot go on: it was unloaded"), 0.0)
    by_hand = ModelUnloaded("cannot go on: it was unloaded by an operator")
    assert not ledger.goes_on_after(by_hand, 0.0)


def test_hole_in_a_continued_stream_is_a_protocol_error() -> None:
    ledger = StreamLedger(REQUEST)
    ledger.next_request()
    for event in answer_events(REQUEST)[:3]:
        ledger.take(event)
    ledger.next_request()
    with pytest.raises(ProtocolError, match="event 3 came where 2 was due"):
        ledger.take(TextDelta(0, "late", seq=3))


def test_failed_raises_its_error() -> None:
    with pytest.raises(DeviceFailed, match="dead"):
        StreamLedger(REQUEST).take(Failed(DeviceFailed("dead").info()))


def test_who_is_at_fault() -> None:
    assert is_replicas_fault(GONE)
    assert not is_replicas_fault(InvalidRequest("bad"))
    assert not is_replicas_fault(FULL)
    assert not StreamLedger(REQUEST).goes_on_after(InvalidRequest("bad"), 0.0)
