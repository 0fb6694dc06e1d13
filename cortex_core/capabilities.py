"""What a model can be asked for, so that the wrong question is refused before a load."""

from collections.abc import Collection
from typing import Final, Literal

from cortex_core.errors import InvalidRequest
from cortex_core.ids import ModelId

Ability = Literal["completions", "embeddings"]
_INSTEAD: Final[dict[Ability, str]] = {
    "completions": "it gives embeddings; ask /v1/embeddings, or another model",
    "embeddings": "it gives no embeddings; name a model that does",
}


def require_ability(model_id: ModelId, capabilities: Collection[str], ability: Ability) -> None:
    """Refuse a request that the model cannot serve.

    A model that nothing is known of yet, because no node has fetched it, gets the benefit of the
    doubt.

    Raises:
        InvalidRequest: `capabilities` are known and lack it.
    """
    if not _may_have(capabilities, ability):
        verb = "generate" if ability == "completions" else "embed"
        raise InvalidRequest(f"cannot {verb} with {model_id}: {_INSTEAD[ability]}", param="model")


def can_generate(capabilities: Collection[str]) -> bool:
    """Return whether the model may be asked to, as far as is known."""
    return _may_have(capabilities, "completions")


def _may_have(capabilities: Collection[str], ability: Ability) -> bool:
    return not capabilities or ability in capabilities
