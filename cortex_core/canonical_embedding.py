"""The canonical request for vectors and its events, as `cortex_core.canonical` has them for text.

`POST /embed` takes the one and answers with the others, one for each line.
"""

import msgspec

from cortex_core.canonical import Completed, Failed, Ping, TextPrompt, TokensPrompt, Usage
from cortex_core.ids import ModelId, RequestId


class EmbedRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Vectors are wanted, one for each input. Limits: `cortex_core.embedding_limits`."""

    request_id: RequestId
    model: ModelId
    inputs: tuple[TextPrompt | TokensPrompt, ...]
    """Text gets the special tokens that the model's tokenizer puts around it; ids are taken as
    they are."""
    dimensions: int | None = None
    """Keep so many numbers of each vector and scale them to length 1; None is all, as they are."""
    principal: str | None = None


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """The vector of input number `index`, as float32 little endian. They come in any order."""

    index: int
    vector: bytes


EmbedEvent = Ping | Embedded | Completed | Failed
"""What `EmbedRequest` is answered with: one `Embedded` for each input, then a terminal event."""


class EmbedAnswer(msgspec.Struct, frozen=True):
    """A whole answer: vectors in the order of the inputs."""

    vectors: tuple[bytes, ...]
    usage: Usage
