"""Tokens to events: stop strings, numbering, and continuing a stream that was cut."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import Event, Finished, FinishReason, SamplingParams, TextDelta
from neurond.stream_items import Token
from neurond.text.output import RequestOutput
from neurond.text.pieces import TokenPieces
from tests.fakes.tokenizers_made import EOS, byte_level

TOKENIZER = byte_level()
PIECES = TokenPieces(TOKENIZER)
END = TOKENIZER.token_to_id(EOS) or 0
TOKENS = st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1), max_size=30)
STOPS = st.lists(
    st.sampled_from(["ab", "abc", "bc", "stop", "\n\n", "😀", "o w", ", "]), max_size=3
)


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def output(stops: list[str] | None = None, *, first_seq: int = 0, n: int = 1) -> RequestOutput:
    sampling = SamplingParams(stop=tuple(stops or ()))
    return RequestOutput(PIECES, sampling, [END], n=n, first_seq=first_seq)


def feed(out: RequestOutput, ids: list[int]) -> list[Event]:
    events: list[Event] = []
    for id_ in ids:
        if out.all_finished:
            break
        events += out.feed(Token(0, id_))
        if out.ends_at(id_):
            events += out.finish(0, "stop")
    return events


def run(ids: list[int], stops: list[str], reason: FinishReason = "length") -> list[Event]:
    out = output(stops)
    events = feed(out, ids)
    return events + out.finish(0, reason)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def tokens_of(events: list[Event]) -> list[int]:
    carried = [event.token_ids for event in events if isinstance(event, TextDelta | Finished)]
    return [id_ for ids in carried for id_ in ids]


@given(TOKENS, STOPS)
def test_events_carry_every_consumed_token_once_and_are_numbered(
    ids: list[int], stops: list[str]
) -> None:
    events = run(ids, stops)
    carried = tokens_of(events)
    assert carried == ids[: len(carried)]
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1


@given(TOKENS, STOPS)
def test_the_text_is_the_decoded_text_up_to_the_first_stop_string(
    ids: list[int], stops: list[str]
) -> None:
    events = run(ids, stops)
    consumed = tokens_of(events)
    whole = TOKENIZER.decode(consumed)
    finished = events[-1]
    assert isinstance(finished, Finished)
    if finished.stop_sequence is None:
        assert text_of(events) == whole
        assert not any(stop in whole for stop in stops)
    else:
        assert whole.startswith(text_of(events) + finished.stop_sequence)


@given(TOKENS, STOPS, st.integers(0, 31))
def test_a_stream_cut_anywhere_and_continued_is_the_uncut_stream(
    ids: list[int], stops: list[str], place: int
) -> None:
    uncut = run(ids, stops)
    seen = uncut[: place % len(uncut)]
    replayed = tokens_of(seen)
    resumed = output(stops, first_seq=len(seen))
    rest = feed(resumed, replayed)
    rest += feed(resumed, ids[len(replayed) :])
    rest += resumed.finish(0, "length")
    assert seen + rest == uncut


def test_end_of_sequence_stands_in_finished_and_counts() -> None:
    out = output()
    events = feed(out, [*ids_of("hi"), END])
    assert text_of(events) == "hi"
    assert events[-1] == Finished(0, "stop", None, 2, (END,))
    assert out.completion_tokens == 3


def test_a_stop_string_over_several_tokens_is_neither_sent_nor_what_follows() -> None:
    out = output(["wor"])
    events = feed(out, ids_of("hello world, and more"))
    assert text_of(events) == "hello "
    assert isinstance(events[-1], Finished)
    assert events[-1].stop_sequence == "wor"
    assert out.completion_tokens == len(tokens_of(events))
    assert out.feed(Token(0, 5)) == []
    assert out.finish(0, "cancelled") == []


def test_withheld_text_comes_when_the_choice_ends_otherwise() -> None:
    events = run(ids_of("12st"), ["stop"])
    assert text_of(events) == "12st"
    assert text_of(events[:-2]) == "12"


def test_end_tokens_are_text_like_any_other_with_ignore_eos() -> None:
    out = RequestOutput(PIECES, SamplingParams(ignore_eos=True), [END])
    events = out.feed(Token(0, END))
    assert events == [TextDelta(0, "", 0, (END,))]


def test_stop_token_ids_end_the_answer() -> None:
    stop_id = ids_of("x")[0]
    out = RequestOutput(PIECES, SamplingParams(stop_token_ids=(stop_id,)), [])
    events = out.feed(Token(0, stop_id)) + out.finish(0, "stop")
    assert events == [Finished(0, "stop", None, 0, (stop_id,))]


def test_choices_are_numbered_together_and_end_apart() -> None:
    out = output(n=2)
    first, second = ids_of("a")[0], ids_of("b")[0]
    events = out.feed(Token(1, second)) + out.feed(Token(0, first)) + out.finish(1, "length")
    assert [(event.index, event.seq) for event in events] == [(1, 0), (0, 1), (1, 2)]
    assert not out.all_finished
    out.finish(0, "stop")
    assert out.all_finished


def test_logprobs_carry_text_of_special_tokens_too() -> None:
    out = RequestOutput(PIECES, SamplingParams(logprobs=1), [])
    (event,) = out.feed(Token(0, ids_of("a")[0], -0.5, ((END, -0.25),)))
    assert isinstance(event, TextDelta)
    assert event.logprobs[0].text == "a"
    assert event.logprobs[0].top[0].text == EOS
