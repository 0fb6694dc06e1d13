"""Counting tokens: who is asked first, and what is told when nobody can."""

import pytest

from cortex_core.canonical import CountTokensRequest, CountTokensResponse, TextPrompt
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    Timeout,
)
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import ModelLimit, ModelState
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot, ModelView, NodeView, ReplicaView
from cortexd.token_count import HURRY_S, count_tokens, nodes_for

MODEL = ModelId("fake:m")
PROMPT = TextPrompt("hi")


def index(*, down: str = "", doubted: str = "", **states: ModelState) -> FleetIndex:
    """Nodes a to d, of which those named have the model in that state."""
    names = [NodeName(name) for name in "abcd"]
    replicas = [
        ReplicaView(
            ReplicaId(f"{name}/m"),
            MODEL,
            NodeName(name),
            f"http://{name}",
            state,
            column,
            1,
            servable=name not in doubted,
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
        self.bounds_s: list[float | None] = []
        self.requests: list[CountTokensRequest] = []
        self.reported: list[tuple[ReplicaId, ErrorInfo]] = []

    async def count(self, index: FleetIndex) -> int:
        return await count_tokens(self, index, MODEL, PROMPT, report=self.report)

    def report(self, replica_id: ReplicaId, error: ErrorInfo) -> None:
        self.reported.append((replica_id, error))

    async def count_tokens(
        self,
        endpoint: str,
        model_id: ModelId,
        request: CountTokensRequest,
        *,
        timeout_s: float | None = None,
    ) -> CountTokensResponse:
        name = endpoint.removeprefix("http://")
        self.asked.append(name)
        self.bounds_s.append(timeout_s)
        self.requests.append(request)
        answer = self._answers[name]
        if isinstance(answer, CortexError):
            raise answer
        return CountTokensResponse(answer)


def test_ready_replicas_are_asked_first_then_others_then_anybody() -> None:
    found = nodes_for(index(c="loading", b="ready", down="d"), MODEL)
    assert [node.endpoint for node in found] == ["http://b", "http://c", "http://a"]
    found = nodes_for(index(c="loading", b="ready", doubted="b"), MODEL)
    assert [node.name for node in found] == ["c", "b", "a", "d"]


async def test_next_node_is_asked_when_one_cannot() -> None:
    nodes = Nodes(a=ModelNotFound("no file"), b=NodeUnavailable("gone"), c=12)
    assert await nodes.count(index()) == 12
    assert nodes.asked == ["a", "b", "c"]
    assert nodes.requests == [CountTokensRequest(PROMPT, chat_template="t")] * 3


async def test_bad_prompt_is_told_at_once() -> None:
    nodes = Nodes(a=InvalidRequest("cannot render: no user turn"))
    with pytest.raises(InvalidRequest, match="no user turn"):
        await nodes.count(index())
    assert nodes.asked == ["a"]


async def test_nobody_left_is_told_with_what_a_node_said() -> None:
    missing = ModelNotFound("no file")
    nodes = Nodes(a=NodeUnavailable("gone"), b=missing, c=missing, d=missing)
    with pytest.raises(NodeUnavailable, match="gone"):
        await nodes.count(index())


async def test_a_node_that_is_away_is_reported_where_it_has_a_replica() -> None:
    gone = NodeUnavailable("gone")
    nodes = Nodes(a=gone, b=gone, c=gone, d=12)
    assert await nodes.count(index(a="ready", b="unloaded")) == 12
    assert nodes.reported == [("a/m", gone.info()), ("b/m", gone.info())]


@pytest.mark.parametrize("error", [ModelNotFound("no file"), Timeout("no answer in 5 s")])
async def test_a_node_that_cannot_count_or_is_slow_is_not_reported(error: CortexError) -> None:
    nodes = Nodes(a=error, b=12)
    assert await nodes.count(index(a="ready", b="ready")) == 12
    assert nodes.reported == []


async def test_a_node_is_not_waited_for_long_while_there_is_another() -> None:
    gone = NodeUnavailable("gone")
    nodes = Nodes(a=gone, b=gone, c=gone, d=12)
    assert await nodes.count(index()) == 12
    assert nodes.bounds_s == [HURRY_S, HURRY_S, HURRY_S, None]
