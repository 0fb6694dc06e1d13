"""Why a request cannot be placed: the kind of error, its words and when to try again."""

import pytest

from cortex_core.errors import (
    CortexError,
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    NodeUnavailable,
    OutOfMemory,
    Overloaded,
)
from cortex_core.ids import ModelId, NodeName
from cortexd.config import ModelConfig
from cortexd.fleet.decisions import RouteRequest
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.events import Cordoned, NodeFailed
from cortexd.fleet.refusals import RETRY_AFTER_S, Refusals
from cortexd.fleet.setbacks import Setbacks
from tests.fakes.fleet_world import dispatcher_of, node_model, polled

A = ModelId("file:a")
N, M = NodeName("n"), NodeName("m")
NOW = 100.0


def refusal(
    fleet: Dispatcher, *capable: NodeName, setbacks: Setbacks | None = None, only: str | None = None
) -> CortexError:
    known = setbacks or Setbacks(retry_s=15.0, max_attempts=5)
    refusals = Refusals(fleet.state, fleet.catalogue, known, now=NOW)
    request = RouteRequest(A, only_node=NodeName(only) if only else None)
    return refusals.error(request, [fleet.state.nodes[name] for name in capable])


def test_a_fleet_without_nodes() -> None:
    error = refusal(dispatcher_of())
    assert isinstance(error, Overloaded)
    assert "no neuron is configured" in error.message


@pytest.mark.parametrize(
    ("model", "kind", "cause"),
    [
        (ModelConfig(id=A, vram_mb=20_000), OutOfMemory, "n/cuda-0 has 10000 MB"),
        (ModelConfig(id=A, harness="candle"), ModelLoadFailed, "n has no harness 'candle'"),
        (ModelConfig(id=A, min_devices=2), ModelLoadFailed, "n runs a model on 1 device(s)"),
    ],
)
def test_what_fits_nowhere_is_told_with_its_cause_and_no_retry(
    model: ModelConfig, kind: type[CortexError], cause: str
) -> None:
    fleet = dispatcher_of("n", models=(model,))
    fleet.apply(polled("n"), 0.0)

    error = refusal(fleet)

    assert type(error) is kind
    assert cause in error.message
    assert error.retry_after_s is None


def test_a_node_that_is_not_configured_is_named() -> None:
    assert "no node is named 'attic'" in refusal(dispatcher_of("n"), only="attic").message


def test_the_setback_that_ends_first_says_when_to_retry() -> None:
    fleet = dispatcher_of("n", "m")
    setbacks = Setbacks(retry_s=15.0, max_attempts=5)
    setbacks.failed(A, N, ModelLoadFailed("cannot load on n"), NOW - 5)
    setbacks.failed(A, M, OutOfMemory("cannot load on m"), NOW - 12)

    error = refusal(fleet, N, M, setbacks=setbacks)

    assert (type(error), error.message) == (OutOfMemory, "cannot load on m")
    assert error.retry_after_s == 3.0


def test_an_operator_s_mistake_is_not_the_client_s() -> None:
    setbacks = Setbacks(retry_s=15.0, max_attempts=5)
    setbacks.failed(A, N, InvalidRequest("cannot use chat_template", param="profile"), NOW)

    error = refusal(dispatcher_of("n"), N, setbacks=setbacks)

    assert (type(error), error.message) == (ModelLoadFailed, "cannot use chat_template")
    assert (error.param, error.retry_after_s) == (None, 15.0)


def test_a_model_that_no_source_has_is_not_tried_again() -> None:
    setbacks = Setbacks(retry_s=15.0, max_attempts=5)
    setbacks.failed(A, N, ModelNotFound("cannot find llm-nothing on PyPI"), NOW)

    error = refusal(dispatcher_of("n"), N, setbacks=setbacks)

    assert (type(error), error.param) == (ModelNotFound, "model")
    assert error.retry_after_s is None


def test_a_model_that_did_not_fit_is_told_so() -> None:
    fleet = dispatcher_of("n")
    setbacks = Setbacks(retry_s=15.0, max_attempts=5)
    no_room = OutOfMemory("cannot load file:a: 10 MB are free")
    setbacks.did_not_fit(A, N, no_room, NOW, may_evict=True)

    assert refusal(fleet, N, setbacks=setbacks) is no_room

    setbacks = Setbacks(retry_s=15.0, max_attempts=5)
    setbacks.did_not_fit(A, N, no_room, NOW, may_evict=False)

    error = refusal(fleet, N, setbacks=setbacks)
    assert (error.message, error.retry_after_s) == (no_room.message, 15.0)


def test_nodes_that_cannot_be_used_are_told_with_their_causes() -> None:
    fleet = dispatcher_of("n", "m")
    fleet.apply(polled("n"), 0.0)
    fleet.apply(Cordoned(N, on=True), 0.0)
    fleet.apply(NodeFailed(M, NodeUnavailable("cannot reach m: refused")), 0.0)

    error = refusal(fleet, N, M)

    assert isinstance(error, NodeUnavailable)
    assert "n: it is drained by an operator; m: cannot reach m: refused" in error.message
    assert error.retry_after_s == RETRY_AFTER_S


def test_no_room_is_told_with_the_arithmetic() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, vram_mb=9000),))
    fleet.apply(polled("n", node_model("file:b", mb=4000)), 0.0)

    error = refusal(fleet, N)

    assert isinstance(error, Overloaded)
    assert "it needs 9000 MB" in error.message
    assert "cuda-0 has 6000 of 10000 MB free, held by file:b" in error.message
    assert error.retry_after_s == RETRY_AFTER_S
