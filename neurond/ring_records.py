"""Records of the token ring: what an actor writes for each token, vector and end of a choice.

One record each, little endian, written by the actor and read by its supervisor when the bell
rings. Notices stand between them, so that order is kept. The ring itself (`cortex_core.ipc.ring`)
carries them as opaque bytes.

| offset | size | field                                                                   |
|--------|------|-------------------------------------------------------------------------|
| 0      | 4    | stream, unsigned; notice: 0                                             |
| 4      | 1    | kind: 0 token, 1 finish, 2 vector, 3 notice, 4 token of the prompt      |
| 5      | 1    | token: number of top entries, 0 to 20; finish: index into `_REASONS`    |
| 6      | 2    | token: 1 if a logprob is given; else 0                                  |
| 8      | 4    | token id, unsigned; vector: number of its input, from 0; else 0         |
| 12     | 4    | logprob, float32; 0 where not given                                     |
| 16     | 8 n  | token: top entries: token id unsigned, logprob float32                  |
| 16     | 4 n  | vector: its numbers, float32                                            |
| 16     | n    | notice: a `protocol.RingNotice`, msgpack                                |
"""

import struct
from collections.abc import Sequence
from typing import get_args

import msgspec

from cortex_core.canonical import FinishReason
from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import ProtocolError
from neurond.protocol import RingNotice

_HEAD = struct.Struct("<IBBHIf")
_TOP = struct.Struct("<If")
_TOKEN, _FINISH, _VECTOR, _NOTICE, _PROMPT_TOKEN = 0, 1, 2, 3, 4
_NOTICE_HEAD = _HEAD.pack(0, _NOTICE, 0, 0, 0, 0.0)
_notices: msgspec.msgpack.Decoder[RingNotice] = msgspec.msgpack.Decoder(RingNotice)
_NUMBER_BYTES = 4
_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)
_REASON_NUMBER = {reason: number for number, reason in enumerate(_REASONS)}


class TokenRecord(msgspec.Struct, frozen=True, gc=False):
    """One sampled token. `top` holds (token id, logprob), most likely first."""

    stream: int
    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class PromptTokenRecord(msgspec.Struct, frozen=True, gc=False):
    """A token of a prompt, with the log probability that it has there."""

    stream: int
    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class FinishRecord(msgspec.Struct, frozen=True, gc=False):
    """The end of a stream; no record of it follows."""

    stream: int
    reason: FinishReason


class VectorRecord(msgspec.Struct, frozen=True, gc=False):
    """The vector of input number `index`, float32 little endian."""

    stream: int
    index: int
    vector: bytes


Record = TokenRecord | PromptTokenRecord | FinishRecord | VectorRecord | RingNotice


def encode_token(
    stream: int,
    token_id: int,
    logprob: float | None,
    top: Sequence[tuple[int, float]],
    *,
    of_prompt: bool = False,
) -> bytes:
    """Return the record of one token; at most 20 `top` entries."""
    given = logprob is not None
    kind = _PROMPT_TOKEN if of_prompt else _TOKEN
    head = _HEAD.pack(stream, kind, len(top), given, token_id, logprob or 0.0)
    return head if not top else head + b"".join(_TOP.pack(*entry) for entry in top)


def encode_finish(stream: int, reason: FinishReason) -> bytes:
    """Return the record of the end of a stream."""
    return _HEAD.pack(stream, _FINISH, _REASON_NUMBER[reason], 0, 0, 0.0)


def encode_vector(stream: int, index: int, vector: bytes) -> bytes:
    """Return the record of one input's vector."""
    return _HEAD.pack(stream, _VECTOR, 0, 0, index, 0.0) + vector


def encode_notice(notice: RingNotice) -> bytes:
    """Return the record of a notice, which goes the way of tokens to keep its place among them."""
    return _NOTICE_HEAD + msgspec.msgpack.encode(notice)


def decode_record(data: bytes | memoryview) -> Record:
    """Read one record.

    Raises:
        ProtocolError: it is cut short, too long, or of no known kind.
    """
    if len(data) < _HEAD.size:
        raise ProtocolError(f"cannot read a token record: it has {len(data)} bytes")
    stream, kind, count, given, token_id, logprob = _HEAD.unpack_from(data)
    if kind in (_TOKEN, _PROMPT_TOKEN) and len(data) == _HEAD.size + count * _TOP.size:
        top = tuple(_TOP.iter_unpack(data[_HEAD.size :])) if count else ()
        record = TokenRecord if kind == _TOKEN else PromptTokenRecord
        return record(stream, token_id, logprob if given else None, top)
    if kind == _FINISH and count < len(_REASONS):
        return FinishRecord(stream, _REASONS[count])
    if kind == _VECTOR and len(data) > _HEAD.size and len(data) % _NUMBER_BYTES == 0:
        return VectorRecord(stream, token_id, bytes(data[_HEAD.size :]))
    if kind == _NOTICE:
        return _decode_notice(data[_HEAD.size :])
    raise ProtocolError(f"cannot read a token record: kind {kind} with {len(data)} bytes")


def _decode_notice(payload: bytes | memoryview) -> RingNotice:
    try:
        return _notices.decode(payload)
    except UNDECODABLE as ex:
        raise ProtocolError(f"cannot read a notice of {len(payload)} bytes: {ex}") from ex
