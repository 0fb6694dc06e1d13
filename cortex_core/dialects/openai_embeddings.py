"""`POST /v1/embeddings`: OpenAI's dialect of vectors."""

import struct
from binascii import b2a_base64
from collections.abc import Iterator
from typing import Literal

import msgspec

from cortex_core.canonical import TextPrompt, TokensPrompt
from cortex_core.canonical_embedding import EmbedAnswer, EmbedRequest
from cortex_core.dialects.fields import checked_model, principal_of
from cortex_core.dialects.openai_errors import OpenAIReplies
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.embedding_limits import check_embedding, check_num_inputs
from cortex_core.ids import ModelId, RequestId
from cortex_core.sampling_limits import check_token_ids

Encoding = Literal["float", "base64"]


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body, by its wire names; fields that are not here are ignored."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Encoding | None = None
    dimensions: int | None = None
    user: str | None = None


class DecodedEmbedding(msgspec.Struct, frozen=True):
    """A request as the dialect read it. `model` is the client's own word, which answers repeat."""

    request: EmbedRequest
    model: str
    encoding: Encoding


_decoder = msgspec.json.Decoder(EmbeddingsBody)


class OpenAIEmbeddings(OpenAIReplies):
    """The dialect; stateless, one object serves every request."""

    def decode_request(self, body: bytes, *, request_id: RequestId) -> DecodedEmbedding:
        """Return the canonical request for a client's body.

        Raises:
            InvalidRequest: with `param` as the JSON path of what is wrong.
        """
        wire = read_json(_decoder, body)
        request = EmbedRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            inputs=_inputs(wire.input),
            dimensions=wire.dimensions,
            principal=principal_of(wire.user),
        )
        check_embedding(request, param="input")
        return DecodedEmbedding(request, wire.model, wire.encoding_format or "float")

    def encode_answer(self, decoded: DecodedEmbedding, answer: EmbedAnswer) -> Iterator[bytes]:
        """Yield the answer's JSON, one piece for each vector and two around them.

        A large answer takes a while to write: the caller may do other things in between.
        """
        yield b'{"object":"list","data":['
        for index, vector in enumerate(answer.vectors):
            comma = b"," if index else b""
            yield b'%b{"object":"embedding","index":%d,"embedding":%b}' % (
                comma,
                index,
                _encoded(vector, decoded.encoding),
            )
        tokens = answer.usage.prompt_tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        yield b'],"model":%b,"usage":%b}' % (
            msgspec.json.encode(decoded.model),
            msgspec.json.encode(usage),
        )


def _encoded(vector: bytes, encoding: Encoding) -> bytes:
    if encoding == "base64":
        return b'"%b"' % b2a_base64(vector, newline=False)
    return msgspec.json.encode(struct.unpack(f"<{len(vector) // 4}f", vector))


def _inputs(wire: str | list[str | int | list[int]]) -> tuple[TextPrompt | TokensPrompt, ...]:
    if isinstance(wire, str):
        return (TextPrompt(wire),)
    if wire and isinstance(wire[0], int):
        return (_tokens(wire, "input"),)
    check_num_inputs(len(wire), param="input")
    inputs: list[TextPrompt | TokensPrompt] = []
    for index, each in enumerate(wire):
        if isinstance(each, int):
            raise refuse(f"input[{index}]", "expected a text or a list of token ids, got a number")
        place = f"input[{index}]"
        inputs.append(TextPrompt(each) if isinstance(each, str) else _tokens(each, place))
    return tuple(inputs)


def _tokens(ids: "list[str | int | list[int]] | list[int]", place: str) -> TokensPrompt:
    found = [id_ for id_ in ids if isinstance(id_, int)]
    if len(found) < len(ids):
        index = next(index for index, id_ in enumerate(ids) if not isinstance(id_, int))
        raise refuse(f"{place}[{index}]", "expected a token id like those before it")
    check_token_ids(found, param=place)
    return TokensPrompt(tuple(found))
