"""Event lines: any cut of the bytes gives the same events."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import Completed, Event, Ping, Started, TextDelta, Usage
from cortex_core.errors import ProtocolError
from cortex_core.ids import ModelId, RequestId
from cortexd import ndjson
from cortexd.ndjson import EventLines

EVENTS: list[Event] = [
    Ping(),
    Started(RequestId("r"), ModelId("fake:m"), 3, prompt_token_ids=(1, 2, 3)),
    TextDelta(0, "grüße 🌍", seq=0, token_ids=(7,)),
    TextDelta(0, "\n", seq=1),
    Completed(Usage(3, 2)),
]
DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
RAW = b"".join(msgspec.json.encode(event) + b"\n" for event in EVENTS)


@given(st.lists(st.integers(0, len(RAW)), max_size=12))
def test_events_survive_every_cut(cuts: list[int]) -> None:
    lines = EventLines(DECODER)
    bounds = [0, *sorted(cuts), len(RAW)]
    found: list[Event] = []
    for start, end in itertools.pairwise(bounds):
        found += lines.feed(RAW[start:end])
    assert found == EVENTS


def test_a_line_that_is_no_event_is_refused() -> None:
    with pytest.raises(ProtocolError, match="cannot read the event stream"):
        EventLines(DECODER).feed(b'{"type":"hologram"}\n')


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "MAX_LINE_BYTES", 10)
    with pytest.raises(ProtocolError, match="exceeds"):
        EventLines(DECODER).feed(b"x" * 11)
