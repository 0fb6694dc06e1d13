"""From the states of an input's tokens to its vector, and from that to bytes. Without torch."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from cortex_core.errors import ErrorInfo, InternalError
from neurond.engine.embedding import EmbedInput
from neurond.sources.prepared import Pooling

Floats = NDArray[np.float32]


def vectors_of(
    states: Floats, inputs: Sequence[EmbedInput], pooling: Pooling
) -> list[bytes | ErrorInfo]:
    """Return each input's vector as float32 little endian, or why it has none.

    Args:
        states: [T, hidden], the tokens of one input behind those of another; T in all.
    """
    ends = accumulate(len(each.token_ids) for each in inputs)
    found: list[bytes | ErrorInfo] = []
    start = 0
    for each, end in zip(inputs, ends, strict=True):
        vector = pool(states[start:end], pooling, each.dimensions)
        start = end
        if np.isfinite(vector).all():
            found.append(vector.astype("<f4").tobytes())
        else:
            error = InternalError("cannot embed: the model's states are not finite")
            found.append(error.info())
    return found


def pool(states: Floats, pooling: Pooling, dimensions: int | None = None) -> Floats:
    """Return the vector of one input from its states [n, hidden].

    One of so many `dimensions`, be it all of them, has length 1, so that products are comparable.
    """
    match pooling.mode:
        case "mean":
            vector = states.mean(axis=0, dtype=np.float32)
        case "max":
            vector = states.max(axis=0)
        case "cls":
            vector = states[0]
        case "last":
            vector = states[-1]
    if dimensions is not None:
        return _scaled(vector[:dimensions])
    return _scaled(vector) if pooling.normalize else vector


def _scaled(vector: Floats) -> Floats:
    """Return it with length 1; nothing has no direction and stays nothing."""
    length = np.linalg.norm(vector.astype(np.float64))
    return (vector / length).astype(np.float32) if length > 0 else vector
