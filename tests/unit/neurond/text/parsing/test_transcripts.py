"""The families' answers, whole, cut into any pieces, and spoilt."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import json
from itertools import pairwise

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import Tool
from neurond.text.parsing.families import CALL_FORMATS, REASONING_MARKS
from neurond.text.parsing.harmony import HARMONY_MARKERS, HarmonyParser
from neurond.text.parsing.parser import AnswerParser, HeldCalls, MarkedParser, joined
from neurond.text.parsing.reader import Markers
from neurond.text.parsing.segments import CallEnded, Tools
from neurond.text.replay import MOST_SET_FREE
from tests.fakes.transcripts import TOOLS, TRANSCRIPTS, BrokenCall, Call, Told, Transcript, told

by_name = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: each.name)
any_transcript = st.sampled_from(TRANSCRIPTS)


def parser(
    transcript: Transcript,
    *,
    tools: tuple[Tool, ...] = TOOLS,
    hidden: frozenset[str] = frozenset(),
    held: bool = False,
) -> AnswerParser:
    if transcript.tools == "harmony":
        return HarmonyParser(HARMONY_MARKERS, wants_calls=bool(tools), held=held)
    return MarkedParser(
        REASONING_MARKS.get(transcript.reasoning),
        CALL_FORMATS[transcript.tools] if tools else None,
        Tools(tools),
        hidden,
        held=HeldCalls(all=held),
        thinks=transcript.thinks,
    )


def parse(made: AnswerParser, pieces: list[str], *, cut: bool = False) -> list[Told]:
    segments = [segment for piece in pieces for segment in made.push(piece)]
    return told(joined(segments + made.flush(cut=cut)))


def begins_an_object(text: str) -> bool:
    """Whether JSON can go on from here to an object, and is none yet."""
    if not text:
        return True
    value = jiter.from_json(text.encode(), partial_mode=True)
    try:
        json.loads(text)
    except ValueError:
        return isinstance(value, dict)
    return False


def cut(text: str, places: list[int]) -> list[str]:
    """Return the pieces of a text that is cut at `places`, each taken into its length."""
    if not text:
        return []
    bounds = sorted({0, len(text), *(place % len(text) for place in places)})
    return [text[start:end] for start, end in pairwise(bounds)]


@by_name
def test_an_answer_is_taken_apart(transcript: Transcript) -> None:
    assert parse(parser(transcript), [transcript.text]) == transcript.segments


@by_name
@pytest.mark.parametrize("held", [True, False])
def test_an_answer_that_comes_by_characters_is_the_same(transcript: Transcript, held: bool) -> None:
    whole = parse(parser(transcript, held=held), [transcript.text])
    assert parse(parser(transcript, held=held), list(transcript.text)) == whole


@given(any_transcript, st.lists(st.integers(0, 1000), max_size=12))
def test_cuts_change_nothing(transcript: Transcript, places: list[int]) -> None:
    assert parse(parser(transcript), cut(transcript.text, places)) == transcript.segments


@given(
    any_transcript,
    any_transcript,
    st.integers(0, 400),
    st.integers(0, 60),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_a_spoilt_answer_is_cut_without_change_and_arguments_are_json(
    transcript: Transcript,
    other: Transcript,
    place: int,
    length: int,
    held: bool,
    ends_early: bool,
    data: st.DataObject,
) -> None:
    place %= len(transcript.text)
    put_in = other.text[place : place + data.draw(st.integers(0, 40))]
    text = transcript.text[:place] + put_in + transcript.text[place + length :]
    places = data.draw(st.lists(st.integers(0, 1000), max_size=12))
    whole = parse(parser(transcript, held=held), [text], cut=ends_early)
    assert parse(parser(transcript, held=held), cut(text, places), cut=ends_early) == whole
    for segment in whole:
        if isinstance(segment, Call):
            assert isinstance(json.loads(segment.arguments), dict)
        elif isinstance(segment, BrokenCall):
            assert held or ends_early, "malformed calls come as text"
            assert segment is whole[-1]
            assert begins_an_object(segment.arguments)


@given(any_transcript, st.integers(1, 400))
def test_of_an_answer_that_breaks_off_nothing_is_lost(transcript: Transcript, length: int) -> None:
    """Where no call was whole yet, all that came is there, but for thoughts' markers."""
    text = transcript.text[: length % len(transcript.text)]
    segments = parse(parser(transcript), [text])
    assert not any(isinstance(each, BrokenCall) for each in segments)
    if transcript.tools == "harmony" or any(isinstance(each, Call) for each in segments):
        return
    said = "".join(each.text for each in segments if not isinstance(each, Call | BrokenCall))
    marks = REASONING_MARKS.get(transcript.reasoning)
    for marker in (marks.opens, marks.closes, marks.label) if marks is not None else ():
        text = text.replace(marker, "")
    assert "".join(said.split()) == "".join(text.split())


@by_name
def test_the_end_sets_little_free(transcript: Transcript) -> None:
    for length in range(len(transcript.text)):
        made = parser(transcript)
        made.push(transcript.text[:length])
        assert len(made.flush()) <= 1
        made = parser(transcript)
        made.push(transcript.text[:length])
        ends = [each for each in made.flush(cut=True) if not isinstance(each, CallEnded)]
        assert len(ends) <= MOST_SET_FREE


@by_name
def test_without_tools_calls_are_text(transcript: Transcript) -> None:
    segments = parse(parser(transcript, tools=()), [transcript.text])
    assert not any(isinstance(segment, Call) for segment in segments)


@by_name
def test_markers_that_are_special_tokens_never_show(transcript: Transcript) -> None:
    calls = CALL_FORMATS.get(transcript.tools)
    hidden = frozenset(calls.markers if calls is not None else ()) - {"functools"}
    for end in range(0, len(transcript.text), 3):
        segments = parse(parser(transcript, hidden=hidden), [transcript.text[:end]])
        shown = "".join(each.text for each in segments if not isinstance(each, Call | BrokenCall))
        assert not any(
            marker in shown for marker in hidden if marker.startswith(("<|", "[", "<｜"))
        )


@pytest.mark.parametrize("name", CALL_FORMATS)
def test_no_marker_contains_another(name: str) -> None:
    calls = CALL_FORMATS[name]  # type: ignore[index]
    texts = {*calls.markers, *calls.openers} - {"```"}  # that one is never looked for
    assert not [(a, b) for a in texts for b in texts if a != b and a in b]
    assert Markers(calls.openers).split("…", ended=True).before == "…"
