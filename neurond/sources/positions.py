"""How far a decoder's positions go. Pure; takes transformers' configs without importing it."""

from collections.abc import Iterator
from typing import Any


def served_positions(config: Any) -> int:
    """Return the longest sequence of a decoder that can be served, from its text config.

    `longrope` has two rotary tables and takes the second for every sequence of a call whose longest
    is beyond what the model was trained with at first; keys that were computed with the first one
    are wrong then. So such a model is served as far as the first one goes. `dynamic` changes its
    table beyond `max_position_embeddings` only, which no sequence is served beyond.
    """
    most: int = config.max_position_embeddings
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        if rope["rope_type"] == "longrope":
            most = min(most, rope["original_max_position_embeddings"])
    return most


def _ropes(parameters: object) -> Iterator[dict[str, Any]]:
    """Yield rotary `parameters`, which may be nested by the type of the layer."""
    if not isinstance(parameters, dict):
        return
    if "rope_type" in parameters:
        yield parameters
    for nested in parameters.values():
        yield from _ropes(nested)
