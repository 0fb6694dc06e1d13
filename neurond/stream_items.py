"""What comes back from a device for one request, item by item, in the order it was said."""

import msgspec

from cortex_core.canonical import FinishReason


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
    """What input number `input_index` of an embedding request came to, as float32 little endian.

    Its stream has one choice, which finishes with `stop` once every input has its vector.
    """

    input_index: int
    vector: bytes


StreamItem = NotHeld | Admitted | Adopted | PromptToken | Token | ChoiceFinished | Vector
