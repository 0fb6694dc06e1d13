"""What a caller hands to the supervisor; `neurond.stream_items` has what comes back."""

from collections.abc import Sequence

import msgspec

from cortex_core.canonical import SamplingParams
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
