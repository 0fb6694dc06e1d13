"""Tokens to events through a parser: calls, thoughts, stop strings, continuing what was cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    ContinueFrom,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from cortex_core.ids import RequestId
from neurond.engine.triggers import Triggers
from neurond.stream_items import Token
from neurond.text.output import RequestOutput
from neurond.text.parsed_choice import Parsing
from neurond.text.parsing.json_formats import HERMES
from neurond.text.parsing.parser import HeldCalls, MarkedParser, ReasoningMarks
from neurond.text.parsing.segments import Tools
from neurond.text.pieces import TokenPieces
from neurond.text.replay import replay_output
from tests.fakes.tokenizers_made import EOS, byte_level
from tests.fakes.transcripts import TOOLS

TOKENIZER = byte_level()
PIECES = TokenPieces(TOKENIZER)
END = TOKENIZER.token_to_id(EOS) or 0


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
BEHIND_MARKER = Triggers((ids_of("<tool_call>")[-1],))
"""No marker is a token of this tokenizer; its last letter stands for one."""
PIECES_OF_ANSWERS = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "Hm. ",
            CALL,
            CALL[:40],
            CALL[:55],
            "stop",
            "st",
            "\n",
            "é😀",
            "<tool_",
            "{",
        ]
    ),
    max_size=6,
)


def output(
    *stops: str,
    first_seq: int = 0,
    n: int = 1,
    parallel: bool = True,
    thinks: bool = False,
    held: bool = False,
    triggers: Triggers | None = None,
) -> RequestOutput:
    marks, where = ReasoningMarks("<think>", "</think>"), HeldCalls(all=held, triggers=triggers)
    parsers = [
        MarkedParser(marks, HERMES, Tools(TOOLS), (), thinks=thinks, held=where) for _ in range(n)
    ]
    parsing = Parsing(RequestId("r"), PIECES, parsers, parallel, triggers)
    sampling = SamplingParams(stop=stops)
    return RequestOutput(PIECES, sampling, [END], n=n, first_seq=first_seq, parsing=parsing)


def feed(out: RequestOutput, ids: list[int], index: int = 0) -> list[Event]:
    events: list[Event] = []
    for id_ in ids:
        if not out.is_finished(index):
            events += out.feed(Token(index, id_, -0.5))
        if out.ends_at(id_):
            events += out.finish(index, "stop")
    return events


def run(text: str, *stops: str, reason: FinishReason = "stop", **options: bool) -> list[Event]:
    out = output(*stops, **options)
    events = feed(out, ids_of(text))
    return events + out.finish(0, reason)


def tokens_of(events: list[Event]) -> list[int]:
    return [id_ for event in events for id_ in getattr(event, "token_ids", ())]


def said(events: list[Event], kind: type[TextDelta] | type[ReasoningDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def arguments_of(events: list[Event]) -> list[str]:
    """Return the arguments of each call, in order."""
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    numbers = sorted({event.call_index for event in deltas})
    return ["".join(e.arguments for e in deltas if e.call_index == each) for each in numbers]


def end_of(events: list[Event]) -> Finished:
    end = events[-1]
    assert isinstance(end, Finished)
    return end


def test_calls_are_numbered_and_have_ids_of_their_own() -> None:
    events = run(f"Both:\n{CALL}\n{CALL}")
    starts = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [(start.call_index, start.name) for start in starts] == [
        (0, "get_weather"),
        (1, "get_weather"),
    ]
    assert len({start.id for start in starts}) == 2
    assert [json.loads(each) for each in arguments_of(events)] == [{"city": "Paris"}] * 2
    assert said(events, TextDelta) == "Both:"
    assert end_of(events).reason == "tool_calls"


def test_an_answer_without_calls_ends_as_ever() -> None:
    assert end_of(run("Hello")).reason == "stop"
    assert end_of(run(f"{CALL}", reason="length")).reason == "length"


def test_a_choice_of_one_call_ends_with_it() -> None:
    out = output(parallel=False)
    events = feed(out, ids_of(f"{CALL}{CALL}"))
    assert out.is_finished(0)
    assert end_of(events).reason == "tool_calls"
    assert sum(isinstance(event, ToolCallStarted) for event in events) == 1
    assert out.completion_tokens == len(tokens_of(events)) < len(ids_of(f"{CALL}{CALL}"))


def test_arguments_of_held_calls_are_told_token_by_token() -> None:
    events = run(f"{CALL}.", held=True)
    kinds = [type(event) for event in events]
    first = kinds.index(ToolCallStarted)
    last = max(place for place, kind in enumerate(kinds) if kind is ToolCallDelta)
    assert set(kinds[first + 1 : last]) == {ToolCallDelta}
    assert last - first == len(ids_of('{"city": "Paris"}'))
    before = sum(len(getattr(event, "token_ids", ())) for event in events[: first + 1])
    assert before == len(ids_of(CALL[: CALL.index("{", 20) + 1]))


@pytest.mark.parametrize("reason", ["length", "cancelled"])
@pytest.mark.parametrize("held", [True, False])
def test_a_call_that_a_limit_cuts_off_stays_begun(reason: FinishReason, held: bool) -> None:
    events = run(CALL[:55], reason=reason, held=held)
    assert arguments_of(events) == ['{"city']
    assert end_of(events).reason == reason
    assert said(events, TextDelta) == ""
    assert tokens_of(events) == ids_of(CALL[:55])


@pytest.mark.parametrize(
    "text", [CALL[:55], CALL.replace('"Paris"', '"Paris" and Rome') + "\n<think>More.</think>"]
)
def test_what_the_model_made_no_call_of_is_text_and_the_answer_goes_on(text: str) -> None:
    events = run(f"Hm. {text}")
    assert end_of(events).reason == "stop"
    assert not any(isinstance(event, ToolCallStarted) for event in events)
    assert said(events, TextDelta) == f"Hm. {text}"
    events = run(f"{CALL}{text}")
    assert end_of(events).reason == "tool_calls"
    assert arguments_of(events) == ['{"city": "Paris"}']
    assert said(events, TextDelta) == text


def test_an_unheld_call_is_silent_until_it_is_whole() -> None:
    out = output()
    ids = ids_of(CALL)
    end = len(ids_of(CALL[: CALL.index("}}") + 1]))
    quiet = feed(out, ids[: end - 1])
    assert len(quiet) == end - 1
    assert {type(event) for event in quiet} == {TextDelta}
    assert said(quiet, TextDelta) == ""
    kinds = [type(event) for event in feed(out, ids[end - 1 : end])]
    assert kinds == [ToolCallStarted, ToolCallDelta]


def test_a_held_call_that_is_stopped_by_a_token_in_its_middle_is_cancelled() -> None:
    events = run(CALL[:55], held=True)
    assert arguments_of(events) == ['{"city']
    assert end_of(events).reason == "cancelled"


def test_thoughts_are_counted() -> None:
    out = output(thinks=True)
    events = feed(out, [*ids_of("Hm.</think>Yes"), END])
    assert said(events, ReasoningDelta) == "Hm."
    assert said(events, TextDelta) == "Yes"
    thoughts = [event for event in events if isinstance(event, ReasoningDelta)]
    assert out.reasoning_tokens == sum(len(event.token_ids) for event in thoughts) > 0


def test_stop_strings_are_looked_for_in_what_is_visible() -> None:
    events = run("<think>stop</think>now stop here", "stop", "city")
    assert end_of(events).stop_sequence == "stop"
    assert end_of(events).reason == "stop"
    assert said(events, ReasoningDelta) == "stop"
    assert said(events, TextDelta) == "now "


def test_a_stop_string_behind_a_call_leaves_the_call_to_be_run() -> None:
    events = run(f"{CALL}now stop here", "stop", "city")
    assert end_of(events).reason == "tool_calls"
    assert end_of(events).stop_sequence is None
    assert said(events, TextDelta) == "now "


@pytest.mark.parametrize("text", ['<tool_call>{"a": stop, "b": 1} and more', "<tool_stop> and"])
@pytest.mark.parametrize("tail", ["", "END"])
def test_tokens_behind_a_stop_string_in_what_was_no_call_are_not_counted(
    text: str, tail: str
) -> None:
    out = output("stop")
    ids = ids_of(f"Hm {text}") + ([END] if tail else [])
    events = feed(out, ids) + ([] if out.is_finished(0) else out.finish(0, "length"))
    assert end_of(events).stop_sequence == "stop"
    assert said(events, TextDelta) == f"Hm {text[: text.index('stop')]}"
    assert tokens_of(events) == ids_of(f"Hm {text[: text.index('stop') + 4]}")
    assert out.completion_tokens == len(tokens_of(events))


@pytest.mark.parametrize("becomes_a_call", [True, False])
def test_a_stop_string_far_in_a_long_call(becomes_a_call: bool) -> None:
    content = "".join(f"line {number}. " for number in range(1500)) + "stop and more"
    text = CALL[: CALL.index("Paris")] + content
    ids = ids_of(text + CALL[CALL.index('"}}') :] if becomes_a_call else text)
    events = feed(output("stop"), [*ids, END])
    if becomes_a_call:
        assert tokens_of(events) == [*ids, END]
        assert json.loads(arguments_of(events)[0]) == {"city": content}
    else:
        assert end_of(events).stop_sequence == "stop"
        assert said(events, TextDelta) == text[: text.index("stop")]
        assert tokens_of(events) == ids_of(text[: text.index("stop") + 4])


def test_a_stop_string_in_what_becomes_a_call_takes_no_token_away() -> None:
    text = f"Hm {CALL.replace('get_weather', 'stop')}Done"
    events = run(text, "stop")
    assert tokens_of(events) == ids_of(text)
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["stop"]
    assert said(events, TextDelta) == "HmDone"


def test_logprobs_go_with_what_is_visible() -> None:
    events = run(f"<think>Hm</think>Hi{CALL}")
    texts = [event for event in events if isinstance(event, TextDelta)]
    told = "".join(logprob.text for event in texts for logprob in event.logprobs)
    assert told == "Hi"


def spelled(events: list[Event]) -> str:
    """Return what the tokens are whose log probabilities are told."""
    return b"".join(logprobs_in(events)).decode()


def logprobs_in(events: list[Event]) -> list[bytes]:
    texts = [event for event in events if isinstance(event, TextDelta)]
    return [each.spelled for event in texts for each in event.logprobs]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Paris", "size": 3}',
        "Hi <tool_call> is a tag",
        f"{CALL[:55]} and more\n",
        "a\n\n<tool_ b",
    ],
)
def test_what_turns_out_to_be_text_has_its_logprobs(text: str) -> None:
    events = run(text)
    assert said(events, TextDelta) == spelled(events) == text


@given(
    st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "Hm",
                "{",
                CALL[:40],
                CALL[:55],
                "\n",
                " ",
                "é😀",
                "<tool_",
                "�",
            ]
        )
    ),
    st.sampled_from([(), ("m{",), ("\n<",), ("name",), ("😀 ",)]),
)
def test_without_calls_the_visible_tokens_are_the_text(
    pieces: list[str], stops: tuple[str, ...]
) -> None:
    events = run("".join(pieces), *stops)
    assert not any(isinstance(event, ToolCallStarted) for event in events)
    text, told = said(events, TextDelta), spelled(events)
    if not end_of(events).stop_sequence:
        assert told == text
    else:
        # A token in which text ends and the stop string begins is told whole.
        *_, last = [b"", *logprobs_in(events)]
        assert told.startswith(text)
        assert len(told.encode()) - len(text.encode()) <= max(0, len(last) - 1)


def test_choices_are_taken_apart_each_for_itself() -> None:
    out = output(n=2)
    events = feed(out, ids_of("Hi"), 1) + feed(out, ids_of(CALL), 0)
    events += out.finish(1, "stop") + out.finish(0, "stop")
    ends = {end.index: end.reason for end in events if isinstance(end, Finished)}
    assert ends == {0: "tool_calls", 1: "stop"}


def test_the_end_sets_one_text_free_which_can_be_continued_from() -> None:
    ids = ids_of('<tool_call>\n{"name": st')
    ended = output("stop")
    fed = feed(ended, ids)
    text, end = ended.finish(0, "length")
    assert isinstance(text, TextDelta)
    assert text.text == '<tool_call>\n{"name": st'
    going_on = ContinueFrom((1,), tuple(ids), len(fed) + 1)
    resumed = output("stop", first_seq=going_on.next_seq)
    assert replay_output(resumed, going_on.output_token_ids, 0, going_on) == [end]


def test_all_that_an_end_sets_free_may_have_been_sent_before_the_cut() -> None:
    """Text that was held for a stop string, and a call that the end cut."""
    ids = ids_of("foo E" + CALL[: CALL.index('ris"')])
    first = output("END")
    fed = feed(first, ids)
    *freed, end = first.finish(0, "length")
    assert [type(event) for event in freed] == [TextDelta, ToolCallStarted, ToolCallDelta]
    going_on = ContinueFrom((1,), tuple(ids), len(fed) + len(freed))
    resumed = output("END", first_seq=going_on.next_seq)
    assert replay_output(resumed, going_on.output_token_ids, 0, going_on) == [end]


@given(PIECES_OF_ANSWERS, st.booleans(), st.booleans(), st.booleans())
def test_events_carry_every_consumed_token_once_and_are_numbered(
    pieces: list[str], parallel: bool, thinks: bool, held: bool
) -> None:
    ids = ids_of("".join(pieces))
    events = run("".join(pieces), "stop", parallel=parallel, thinks=thinks, held=held)
    carried = tokens_of(events)
    assert carried == ids[: len(carried)]
    assert [event.seq for event in events] == list(range(len(events)))  # type: ignore[union-attr]
    assert sum(isinstance(event, Finished) for event in events) == 1


@given(
    PIECES_OF_ANSWERS,
    st.booleans(),
    st.integers(0, 400),
    st.booleans(),
    st.sampled_from([{}, {"held": True}, {"triggers": BEHIND_MARKER}]),
)
def test_a_stream_cut_anywhere_and_continued_is_the_uncut_stream(
    pieces: list[str], parallel: bool, place: int, ended: bool, held: dict[str, Any]
) -> None:
    ids = ids_of("".join(pieces)) + ([END] if ended else [])
    first = output("stop", parallel=parallel, **held)
    uncut = feed(first, ids)
    uncut += first.finish(0, "length")
    seen = uncut[: place % len(uncut)]
    replayed = tokens_of(seen)
    resumed = output("stop", parallel=parallel, first_seq=len(seen), **held)
    going_on = ContinueFrom((1,), tuple(replayed), len(seen))
    rest = replay_output(resumed, going_on.output_token_ids, 1, going_on)
    rest += feed(resumed, ids[len(replayed) :])
    rest += resumed.finish(0, "length")
    without = [_without_logprobs(event) for event in uncut]
    assert [_without_logprobs(event) for event in seen + rest] == without


def _without_logprobs(event: Event) -> Event:
    if isinstance(event, TextDelta):
        return TextDelta(event.index, event.text, event.seq, event.token_ids)
    return event


def test_a_call_behind_its_marker_is_told_as_it_is_written() -> None:
    begun = ids_of(CALL[: CALL.index("ris")])
    early = feed(output(triggers=BEHIND_MARKER), begun)
    late = feed(output(triggers=Triggers((END,))), begun)
    assert arguments_of(early) == ['{"city": "Pa']
    assert arguments_of(late) == []
