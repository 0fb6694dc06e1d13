"""Token records, to bytes and back."""

import contextlib
import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import FinishReason
from cortex_core.errors import ErrorInfo, ProtocolError
from cortex_core.ids import ModelId, RequestId
from neurond.protocol import Admitted, ModelLoading, RequestFailed, RingNotice
from neurond.ring_records import (
    FinishRecord,
    PromptTokenRecord,
    TokenRecord,
    VectorRecord,
    decode_record,
    encode_finish,
    encode_notice,
    encode_token,
    encode_vector,
)

ids = st.integers(0, 2**32 - 1)
logprobs = st.floats(width=32, allow_nan=False)


@given(ids, ids, st.none() | logprobs, st.lists(st.tuples(ids, logprobs), max_size=20))
def test_tokens_come_back_as_they_went(
    stream: int, token_id: int, logprob: float | None, top: list[tuple[int, float]]
) -> None:
    data = encode_token(stream, token_id, logprob, top)

    assert decode_record(data) == TokenRecord(stream, token_id, logprob, tuple(top))
    data = encode_token(stream, token_id, logprob, top, of_prompt=True)
    assert decode_record(data) == PromptTokenRecord(stream, token_id, logprob, tuple(top))


@pytest.mark.parametrize(
    "notice",
    [
        Admitted(RequestId("r"), 4),
        RequestFailed(RequestId("r"), ErrorInfo("internal_error", "broken")),
        ModelLoading(ModelId("file:m"), 0.5),
    ],
)
def test_notices_come_back_as_they_went(notice: RingNotice) -> None:
    assert decode_record(encode_notice(notice)) == notice


def test_a_notice_of_no_known_kind_is_refused() -> None:
    data = encode_notice(Admitted(RequestId("r"), 4)).replace(b"Admitted", b"Omitted!")
    with pytest.raises(ProtocolError, match="cannot read a notice"):
        decode_record(data)


@given(ids, st.sampled_from(get_args(FinishReason)))
def test_finishes_come_back_as_they_went(stream: int, reason: FinishReason) -> None:
    assert decode_record(encode_finish(stream, reason)) == FinishRecord(stream, reason)


@given(ids, ids, st.lists(logprobs, min_size=1))
def test_vectors_come_back_as_they_went(stream: int, index: int, numbers: list[float]) -> None:
    vector = struct.pack(f"<{len(numbers)}f", *numbers)

    assert decode_record(encode_vector(stream, index, vector)) == VectorRecord(
        stream, index, vector
    )


@given(st.binary(min_size=16, max_size=64))
def test_noise_is_refused_or_read_whole(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_record(data), TokenRecord | FinishRecord | VectorRecord)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_token(1, 2, None, [(3, -1.0)])[:-1],
        encode_token(1, 2, None, []) + b"\0",
        struct.pack("<IBBHIf", 1, 3, 0, 0, 0, 0.0),
        encode_vector(1, 0, b""),
        encode_vector(1, 0, bytes(7)),
        struct.pack("<IBBHIf", 1, 1, 99, 0, 0, 0.0),
        struct.pack("<IBBHIf", 1, 3, 0, 0, 0, 0.0) + b"\x91\xa1\x80",  # no UTF-8
    ],
)
def test_a_record_that_is_cut_or_unknown_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_record(data)
