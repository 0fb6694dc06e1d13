"""Strategies for canonical event streams that are valid by the order of `canonical`."""

import itertools
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from cortex_core.canonical import (
    Completed,
    Event,
    Finished,
    Loading,
    Ping,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from cortex_core.ids import ModelId, RequestId

REQUEST_ID = RequestId("0123456789abcdef01234567")
MODEL = "small"


@dataclass
class Call:
    id: str
    name: str
    arguments: str


@dataclass
class Said:
    """What one choice says, as its events' concatenation should read; `order` has calls too."""

    order: list[tuple[str, str]] = field(default_factory=list)
    runs: list[tuple[str, str]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    reason: str = "stop"
    stop_sequence: str | None = None

    def joined(self, kind: str) -> str:
        return "".join(text for each, text in self.runs if each == kind)


@dataclass
class Stream:
    events: list[Event]
    said: list[Said]
    usage: Usage
    started: Started


def started(prompt_tokens: int = 7, cached_tokens: int = 0) -> Started:
    return Started(REQUEST_ID, ModelId("pypi:small"), prompt_tokens, cached_tokens)


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """Cut a text anywhere; some of the pieces may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    edges = [0, *cuts, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
arguments_texts = st.dictionaries(st.text(max_size=6), json_values, max_size=4).map(
    lambda value: json.dumps(value, ensure_ascii=False)
)
names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)


@st.composite
def choices(draw: st.DrawFn, index: int, *, calls: bool) -> tuple[list[Event], Said]:
    """One choice's events in order, and what they say."""
    kinds = ["text", "reasoning", *(["call"] if calls else [])]
    said = Said()
    events: list[Event] = []
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=5)):
        if kind == "call":
            said.order.append(("call", ""))
            events += draw(_call(index, said))
            continue
        text = draw(st.text(max_size=12))
        said.order.append((kind, text))
        said.runs.append((kind, text))
        delta = TextDelta if kind == "text" else ReasoningDelta
        events += [delta(index, piece) for piece in draw(pieces(text))]
    said.reason = draw(st.sampled_from(["stop", "length", "content_filter", "cancelled"]))
    if said.calls and said.reason == "stop":
        said.reason = "tool_calls"
    if said.reason == "stop":
        said.stop_sequence = draw(st.none() | st.text(min_size=1, max_size=3))
    events.append(Finished(index, said.reason, said.stop_sequence))
    return events, said


@st.composite
def _call(draw: st.DrawFn, index: int, said: Said) -> list[Event]:
    call = Call(draw(names), draw(names), draw(arguments_texts))
    place = len(said.calls)
    said.calls.append(call)
    deltas = [ToolCallDelta(index, place, piece) for piece in draw(pieces(call.arguments))]
    return [ToolCallStarted(index, place, call.id, call.name), *deltas]


@st.composite
def streams(draw: st.DrawFn, *, max_choices: int = 3, calls: bool = True) -> Stream:
    """A whole stream that completes; choices are interleaved."""
    count = draw(st.integers(1, max_choices))
    made = [draw(choices(index, calls=calls)) for index in range(count)]
    order = draw(st.permutations([index for index, (events, _) in enumerate(made) for _ in events]))
    body = _merge([events for events, _ in made], order)
    prompt_tokens = draw(st.integers(1, 100_000))
    cached_tokens = draw(st.integers(0, prompt_tokens))
    completion_tokens = draw(st.integers(0, 100_000))
    reasoning_tokens = draw(st.integers(0, completion_tokens))
    usage = Usage(prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
    first = started(prompt_tokens, cached_tokens)
    waits = draw(st.lists(st.just(Ping()) | loadings, max_size=3))
    events = [
        *waits,
        first,
        *_with_pings(body, draw(st.sets(st.integers(0, 20)))),
        Completed(usage),
    ]
    return Stream(events, [said for _, said in made], usage, first)


loadings = st.builds(
    Loading,
    stage=st.sampled_from(["queued", "evicting", "fetching", "loading"]),
    progress=st.none() | st.floats(0, 1),
    eta_s=st.none() | st.floats(0, 1e6),
)


def _merge(parts: Sequence[list[Event]], order: Sequence[int]) -> list[Event]:
    sources = [iter(part) for part in parts]
    return [next(sources[index]) for index in order]


def _with_pings(events: list[Event], places: set[int]) -> list[Event]:
    out: list[Event] = []
    for place, event in enumerate(events):
        if place in places:
            out.append(Ping())
        out.append(event)
    return out
