"""The loads of a node's start, one after another."""

import asyncio

import pytest

from cortex_core.errors import ModelNotFound
from cortex_core.ids import ModelId
from cortex_core.neuron_api import Activation, FailedModel, LoadRequest
from neurond.supervisor.activation import ActivationRun

ONE, TWO, THREE = (ModelId(f"file:/{name}") for name in ("one", "two", "three"))
REQUESTS = [LoadRequest(model_id) for model_id in (ONE, TWO, THREE)]


def test_nothing_was_asked_for() -> None:
    assert ActivationRun().state() == Activation("idle")


async def test_no_models_are_done_at_once() -> None:
    run = ActivationRun()
    await run.run([], lambda request: asyncio.sleep(0))
    assert run.state() == Activation("done")


async def test_each_is_loaded_after_the_one_before_and_a_failure_stops_none() -> None:
    run = ActivationRun()
    seen: list[Activation] = []

    async def load(request: LoadRequest) -> None:
        seen.append(run.state())
        if request.model_id == TWO:
            raise ModelNotFound("cannot find it")

    await run.run(REQUESTS, load)

    failed = [FailedModel(TWO, "cannot find it")]
    assert seen == [
        Activation("loading", [TWO, THREE], ONE),
        Activation("loading", [THREE], TWO, [ONE]),
        Activation("loading", [], THREE, [ONE], failed),
    ]
    assert run.state() == Activation("done", completed=[ONE, THREE], failed=failed)


async def test_cancelled_it_loads_no_more_and_is_done() -> None:
    run = ActivationRun()
    running = asyncio.create_task(run.run(REQUESTS, lambda request: asyncio.Event().wait()))
    await asyncio.sleep(0)
    assert run.state().in_progress == ONE

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert run.state() == Activation("done")
