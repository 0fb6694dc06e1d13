"""What of a cut stream can be continued, and what is left of it to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    ContinueFrom,
    Event,
    Finished,
    GenerateRequest,
    SamplingParams,
    TextDelta,
    TextPrompt,
)
from cortex_core.errors import InvalidRequest
from cortex_core.ids import ModelId, RequestId
from neurond.text.output import RequestOutput
from neurond.text.pieces import TokenPieces
from neurond.text.replay import MOST_SET_FREE, check_continuation, replay_output
from tests.fakes.tokenizers_made import EOS, byte_level

TOKENIZER = byte_level()
PIECES = TokenPieces(TOKENIZER)
END = TOKENIZER.token_to_id(EOS) or 0
VOCAB_SIZE = TOKENIZER.get_vocab_size()
HELLO = tuple(TOKENIZER.encode("hello", add_special_tokens=False).ids)


def request(n: int = 1) -> GenerateRequest:
    return GenerateRequest(RequestId("r"), ModelId("file:/m"), TextPrompt("x"), n=n)


def replayed(
    ids: tuple[int, ...], *, next_seq: int = 0, room: int = 10, stop: tuple[str, ...] = ()
) -> tuple[RequestOutput, list[Event]]:
    out = RequestOutput(PIECES, SamplingParams(stop=stop), [END], first_seq=next_seq)
    return out, replay_output(out, ids, room, ContinueFrom((1,), ids, next_seq))


@pytest.mark.parametrize(
    ("n", "going_on", "param"),
    [
        (2, ContinueFrom((1,), (2,), 1), "continue_from"),
        (1, ContinueFrom((), (2,), 1), "continue_from.prompt_token_ids"),
        (1, ContinueFrom((VOCAB_SIZE,), (2,), 1), "continue_from.prompt_token_ids"),
        (1, ContinueFrom((1,), (-1,), 1), "continue_from.output_token_ids"),
    ],
)
def test_what_cannot_be_continued_is_refused(n: int, going_on: ContinueFrom, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_continuation(request(n), going_on, vocab_size=VOCAB_SIZE)
    assert caught.value.param == param


def test_a_continuation_without_output_is_one_from_the_start() -> None:
    check_continuation(request(), ContinueFrom((1,), (), 0), vocab_size=VOCAB_SIZE)
    out, events = replayed(())
    assert (events, out.next_seq, out.all_finished) == ([], 0, False)


def test_a_request_that_is_not_continued_replays_nothing() -> None:
    out = RequestOutput(PIECES, SamplingParams(), [END])
    assert replay_output(out, (), 10, None) == []


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=20), st.data())
def test_only_what_was_not_sent_is_said_again(ids: list[int], data: st.DataObject) -> None:
    whole, everything = replayed(tuple(ids))
    next_seq = data.draw(st.integers(0, len(everything)))
    out, rest = replayed(tuple(ids), next_seq=next_seq)
    assert rest == everything[next_seq:]
    assert (out.next_seq, out.all_finished) == (whole.next_seq, whole.all_finished)


def test_an_answer_that_had_ended_only_lacks_its_end() -> None:
    _, at_end = replayed((*HELLO, END), next_seq=len(HELLO))
    assert at_end == [Finished(0, "stop", None, len(HELLO), (END,))]
    out, full = replayed(HELLO, next_seq=len(HELLO), room=0)
    assert full == [Finished(0, "length", None, len(HELLO), ())]
    assert out.all_finished


def test_a_stop_string_ends_the_replay_and_what_follows_it_is_ignored() -> None:
    out, events = replayed(HELLO, stop=("he",))
    assert out.all_finished
    assert isinstance(events[-1], Finished)
    assert events[-1].stop_sequence == "he"
    assert out.completion_tokens == 1


def test_more_events_than_the_tokens_make_are_refused() -> None:
    made = len(HELLO)
    out, events = replayed(HELLO, next_seq=made + MOST_SET_FREE)
    assert events == []
    assert not any(isinstance(event, TextDelta) for event in out.finish(0, "length"))
    with pytest.raises(InvalidRequest, match=f"these {made} tokens make {made}") as caught:
        replayed(HELLO, next_seq=made + MOST_SET_FREE + 1)
    assert caught.value.param == "continue_from.next_seq"
