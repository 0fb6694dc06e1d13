"""Bounds of an embedding request, checked wherever one is decoded."""

from typing import Final

from cortex_core.canonical import TextPrompt
from cortex_core.canonical_embedding import EmbedRequest
from cortex_core.errors import ContextLengthExceeded, InvalidRequest

MAX_INPUTS: Final = 2048
MAX_TOKENS: Final = 300_000
"""Of all inputs together; both are OpenAI's own."""


def check_embedding(request: EmbedRequest, *, param: str) -> None:
    """Refuse a request that no model can serve.

    Args:
        param: the field that holds the inputs.

    Raises:
        InvalidRequest: naming the input or field that is at fault.
    """
    check_num_inputs(len(request.inputs), param=param)
    for index, each in enumerate(request.inputs):
        if not (each.text if isinstance(each, TextPrompt) else each.token_ids):
            raise _refused(f"{param}[{index}]", "it is empty")
    if request.dimensions is not None and request.dimensions < 1:
        raise _refused("dimensions", f"expected 1 or more, got {request.dimensions}")


def check_num_inputs(count: int, *, param: str) -> None:
    """Raise `InvalidRequest` unless a request can have so many inputs.

    A dialect asks before it makes them: the event loop stands still meanwhile.
    """
    if not 1 <= count <= MAX_INPUTS:
        raise _refused(param, f"expected 1 to {MAX_INPUTS} inputs, got {count}")


def check_lengths(lengths: list[int], max_input_tokens: int, *, param: str) -> None:
    """Refuse inputs whose numbers of tokens are too much, one by one or together.

    Raises:
        InvalidRequest: there are too many tokens in all.
        ContextLengthExceeded: one is longer than the model takes; the message names it.
    """
    total = sum(lengths)
    if total > MAX_TOKENS:
        raise _refused(param, f"the inputs have {total} tokens together, {MAX_TOKENS} is the most")
    for index, length in enumerate(lengths):
        if length > max_input_tokens:
            raise ContextLengthExceeded(
                f"cannot embed: {param}[{index}] is too long: {length} tokens > "
                f"{max_input_tokens} maximum; split it into shorter ones",
                param=f"{param}[{index}]",
            )


def _refused(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"cannot embed: {param}: {why}", param=param)
