"""Frames that survive every way of splitting a stream into lines."""

import json

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.dialects import sse

texts = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\x85\u2028\u2029\r\n"))


@given(text=texts)
def test_text_stays_on_one_line_and_reads_back(text: str) -> None:
    encoded = sse.json_text(text)
    assert len(encoded.decode().splitlines()) == 1
    assert json.loads(encoded) == text


@given(text=texts)
def test_objects_stay_on_one_line_and_read_back(text: str) -> None:
    encoded = sse.json_bytes({"a": [text]})
    assert len(encoded.decode().splitlines()) == 1
    assert json.loads(encoded) == {"a": [text]}


@given(text=texts)
def test_a_comment_is_one_line_that_says_nothing_to_a_parser(text: str) -> None:
    framed = sse.comment(text)
    assert framed.startswith(b": ")
    assert framed.endswith(b"\n\n")
    assert len(framed.decode().removesuffix("\n\n").splitlines()) == 1


def test_frames_end_with_a_blank_line() -> None:
    assert sse.data_frame(b"{}") == b"data: {}\n\n"
    assert sse.named_frame(b"ping", b"{}") == b"event: ping\ndata: {}\n\n"
