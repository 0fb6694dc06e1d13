"""Counts a prompt's tokens on a node: any node that has the model's tokenizer will do."""

from collections.abc import Callable
from typing import Protocol

from cortex_core.canonical import CountTokensRequest, CountTokensResponse, Prompt
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    NotFound,
    Overloaded,
)
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import NodeView

HURRY_S = 5.0
"""For one node's answer while there is another to ask: more than most prompts take."""

Report = Callable[[ReplicaId, ErrorInfo], None]
"""`cortexd.fleet.client.FleetClient.report_failure`."""


class Counting(Protocol):
    """What is asked of `cortexd.neuron_client.NeuronClient`."""

    async def count_tokens(
        self,
        endpoint: str,
        model_id: ModelId,
        request: CountTokensRequest,
        *,
        timeout_s: float | None = None,
    ) -> CountTokensResponse: ...


async def count_tokens(
    nodes: Counting, index: FleetIndex, model_id: ModelId, prompt: Prompt, *, report: Report
) -> int:
    """Return how many tokens `prompt` is for the model, which need not be loaded anywhere.

    A node that is away is reported by way of a replica there, if there is one, so that the next
    count is not held up by it too. One that does not answer in time is not: a long prompt takes its
    time, which says nothing of the replica.

    Raises:
        InvalidRequest: a node says that the prompt cannot be.
        CortexError: no node could count; the error of the last one asked.
    """
    model = index.models.get(model_id)
    request = CountTokensRequest(prompt, model.chat_template if model is not None else None)
    last: CortexError = Overloaded(
        f"cannot count tokens for {model_id}: no node has it now", retry_after_s=5.0
    )
    to_ask = nodes_for(index, model_id)
    for place, node in enumerate(to_ask, 1):
        timeout_s = HURRY_S if place < len(to_ask) else None
        try:
            answer = await nodes.count_tokens(node.endpoint, model_id, request, timeout_s=timeout_s)
        except CortexError as error:
            if isinstance(error, InvalidRequest):
                raise
            if isinstance(error, NodeUnavailable):
                _report(error, index, node.name, report)
            # Not fetched there is no news to a client; what a nearer node said is.
            last = last if isinstance(error, ModelNotFound | NotFound) else error
            continue
        return answer.prompt_tokens
    raise last


def _report(error: CortexError, index: FleetIndex, node: NodeName, report: Report) -> None:
    """Have the fleet look at a node, by way of any replica there."""
    there = (replica.id for replica in index.snapshot.replicas if replica.node == node)
    replica_id = next(there, None)
    if replica_id is not None:
        report(replica_id, error.info())


def nodes_for(index: FleetIndex, model_id: ModelId) -> list[NodeView]:
    """Return whom to ask, the likeliest first: where it is ready, where it is at all, anyone.

    Of those who have it, one that is being looked at goes last.
    """
    replicas = sorted(
        index.replicas_of(model_id), key=lambda r: (not r.servable, r.status != "ready")
    )
    model = index.models.get(model_id)
    feasible = model.feasible_on if model is not None else ()
    names = [replica.node for replica in replicas] + list(feasible)
    nodes = [index.nodes[name] for name in dict.fromkeys(names) if name in index.nodes]
    return [node for node in nodes if node.healthy]
