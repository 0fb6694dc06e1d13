"""Counting tokens: who is asked first, and what is told when nobody can."""

import pytest

from cortex_core.canonical import CountTokensRequest, CountTokensResponse, TextPrompt
from cortex_core.errors import CortexError, InvalidRequest, ModelNotFound, NodeUnavailable
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import ModelLimit, ModelState
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot, ModelView, NodeView, ReplicaView
from cortexd.token_count import count_tokens, endpoints_for

MODEL = ModelId("fake:m")
PROMPT = TextPrompt("hi")


def index(*, down: str = "", **states: ModelState) -> FleetIndex:
    """Nodes a to d, of which those named have the model in that state."""
    names = [NodeName(name) for name in "abcd"]
    replicas = [
        ReplicaView(
            ReplicaId(f"{name}/m"), MODEL, NodeName(name), f"http://{name}", state, column, 1
        )
        for column, (name, state) in enumerate(states.items())
    ]
    return FleetIndex(
        FleetSnapshot(
            version=1,
            models=(ModelView(MODEL, tuple(names), None, ModelLimit(), chat_template="t"),),
            nodes=tuple(NodeView(n, f"http://{n}", healthy=n not in down) for n in names),
            replicas=tuple(replicas),
            aliases={},
        )
    )


class Nodes:
    def __init__(self, **answers: int | CortexError) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.requests: list[CountTokensRequest] = []

    async def count_tokens(
        self, endpoint: str, model_id: ModelId, request: CountTokensRequest
    ) -> CountTokensResponse:
        name = endpoint.removeprefix("http://")
        self.asked.append(name)
        self.requests.append(request)
        answer = self._answers[name]
        if isinstance(answer, CortexError):
            raise answer
        return CountTokensResponse(answer)


def test_ready_replicas_are_asked_first_then_others_then_anybody() -> None:
    found = endpoints_for(index(c="loading", b="ready", down="d"), MODEL)
    assert found == ["http://b", "http://c", "http://a"]


async def test_next_node_is_asked_when_one_cannot() -> None:
    nodes = Nodes(a=ModelNotFound("no file"), b=NodeUnavailable("gone"), c=12)
    assert await count_tokens(nodes, index(), MODEL, PROMPT) == 12
    assert nodes.asked == ["a", "b", "c"]
    assert nodes.requests == [CountTokensRequest(PROMPT, chat_template="t")] * 3


async def test_bad_prompt_is_told_at_once() -> None:
    nodes = Nodes(a=InvalidRequest("cannot render: no user turn"))
    with pytest.raises(InvalidRequest, match="no user turn"):
        await count_tokens(nodes, index(), MODEL, PROMPT)
    assert nodes.asked == ["a"]


async def test_nobody_left_is_told_with_what_a_node_said() -> None:
    missing = ModelNotFound("no file")
    nodes = Nodes(a=NodeUnavailable("gone"), b=missing, c=missing, d=missing)
    with pytest.raises(NodeUnavailable, match="gone"):
        await count_tokens(nodes, index(), MODEL, PROMPT)
