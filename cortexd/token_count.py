"""Counts a prompt's tokens on a node: any node that has the model's tokenizer will do."""

from typing import Protocol

from cortex_core.canonical import CountTokensRequest, CountTokensResponse, Prompt
from cortex_core.errors import CortexError, InvalidRequest, ModelNotFound, NotFound, Overloaded
from cortex_core.ids import ModelId
from cortexd.fleet.index import FleetIndex


class Counting(Protocol):
    """What is asked of `cortexd.neuron_client.NeuronClient`."""

    async def count_tokens(
        self, endpoint: str, model_id: ModelId, request: CountTokensRequest
    ) -> CountTokensResponse: ...


async def count_tokens(
    nodes: Counting, index: FleetIndex, model_id: ModelId, prompt: Prompt
) -> int:
    """Return how many tokens `prompt` is for the model, which need not be loaded anywhere.

    Raises:
        InvalidRequest: a node says that the prompt cannot be.
        CortexError: no node could count; the error of the last one asked.
    """
    model = index.models.get(model_id)
    request = CountTokensRequest(prompt, model.chat_template if model is not None else None)
    last: CortexError = Overloaded(
        f"cannot count tokens for {model_id}: no node has it now", retry_after_s=5.0
    )
    for endpoint in endpoints_for(index, model_id):
        try:
            answer = await nodes.count_tokens(endpoint, model_id, request)
        except CortexError as error:
            if isinstance(error, InvalidRequest):
                raise
            # Not fetched there is no news to a client; what a nearer node said is.
            last = last if isinstance(error, ModelNotFound | NotFound) else error
            continue
        return answer.prompt_tokens
    raise last


def endpoints_for(index: FleetIndex, model_id: ModelId) -> list[str]:
    """Return whom to ask, the likeliest first: where it is ready, where it is at all, anyone."""
    replicas = sorted(index.replicas_of(model_id), key=lambda replica: replica.status != "ready")
    model = index.models.get(model_id)
    feasible = model.feasible_on if model is not None else ()
    names = [replica.node for replica in replicas] + list(feasible)
    nodes = [index.nodes[name] for name in dict.fromkeys(names) if name in index.nodes]
    return [node.endpoint for node in nodes if node.healthy]
