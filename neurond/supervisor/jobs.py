"""What a caller hands to the supervisor, and what it gets back token by token."""

from collections.abc import Sequence

import msgspec

from cortex_core.canonical import FinishReason, SamplingParams
from cortex_core.ids import ModelId, RequestId
from neurond.images.read_image import ReadImage


class EngineJob(msgspec.Struct, frozen=True, kw_only=True):
    """One request in token ids, every choice made and every limit clamped.

    `replayed_token_ids` are earlier output that stands behind the prompt on a continuation; they
    are neither sampled again nor sent again, but count for penalties and the random counter.
    """

    request_id: RequestId
    model_id: ModelId
    prompt_token_ids: Sequence[int]
    replayed_token_ids: Sequence[int] = ()
    sampling: SamplingParams
    max_tokens: int
    """New tokens per choice, 1 and above; prompt, replayed and new ones fit the context."""
    seed: int
    n: int = 1
    eos_token_ids: tuple[int, ...] = ()
    priority: int = 0
    principal: str | None = None
    response_format: bytes | None = None
    """See `protocol.Generate`."""
    images: tuple[ReadImage, ...] = ()
    """In the order of their placeholders; stay the caller's to close."""
    placeholder_id: int | None = None
    """What placeholders are among the prompt's ids, where there are images."""


class EmbedJob(msgspec.Struct, frozen=True, kw_only=True):
    """One embedding request in token ids; every limit is checked, no input is empty."""

    request_id: RequestId
    model_id: ModelId
    inputs: Sequence[Sequence[int]]
    dimensions: int | None = None
    """As `EmbedRequest` has it."""
    principal: str | None = None


class NotHeld(msgspec.Struct, frozen=True, gc=False):
    """What the answer was to be held to behind triggers it is not; the first item, if it comes."""


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """The engine begins with the prompt; so many of its tokens were in the prefix cache."""

    cached_tokens: int


class Adopted(msgspec.Struct, frozen=True, gc=False):
    """So many of the prompt's tokens were not computed for it; comes before the first token where
    that is more than `Admitted` said."""

    cached_tokens: int


class Token(msgspec.Struct, frozen=True, gc=False):
    """One token of choice `index`. `top` holds (token id, logprob), most likely first."""

    index: int
    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class PromptToken(msgspec.Struct, frozen=True, gc=False):
    """The next token of the prompt behind its first one, with its log probability."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class ChoiceFinished(msgspec.Struct, frozen=True, gc=False):
    """Choice `index` has ended; nothing of it follows."""

    index: int
    reason: FinishReason


class Vector(msgspec.Struct, frozen=True, gc=False):
    """What input number `input_index` of an `EmbedJob` came to, as float32 little endian.

    Its stream has one choice, which finishes with `stop` once every input has its vector.
    """

    input_index: int
    vector: bytes


StreamItem = NotHeld | Admitted | Adopted | PromptToken | Token | ChoiceFinished | Vector
