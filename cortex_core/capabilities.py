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
    if capabilities and ability not in capabilities:
        verb = "generate" if ability == "completions" else "embed"
        raise InvalidRequest(f"cannot {verb} with {model_id}: {_INSTEAD[ability]}", param="model")
