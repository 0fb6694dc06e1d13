"""Loading and unloading on a real actor."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from cortex_core.errors import (
    Conflict,
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotLoaded,
    ModelUnloaded,
    OutOfMemory,
)
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import LoadProgress, LoadRequest, ModelProfile, UnloadRequest
from neurond.supervisor.models import MAX_STRANGERS
from tests.fakes.actor_node import PACED, Node, collect, ignore_progress, tokens_of
from tests.fakes.fake_library import tiny_model
from tests.fakes.waiting import WAIT_S, wait_until_async

MUCH = 1500


def let_go(node: Node, model_id: ModelId) -> None:
    (node.library.folder(model_id) / "go").touch()


async def test_callers_share_one_load_and_all_see_its_progress(node: Node) -> None:
    model_id = node.library.add("slow")
    seen: list[list[LoadProgress]] = [[], [], []]
    loads = [
        asyncio.create_task(node.supervisor.load(LoadRequest(model_id), progress.append))
        for progress in seen
    ]
    await wait_until_async(lambda: all(LoadProgress("loading", 0.25) in each for each in seen))
    assert node.supervisor.model(model_id).status == "loading"

    let_go(node, model_id)
    answers = await asyncio.gather(*loads)

    assert node.library.fetches == 1
    assert [answer.already_loaded for answer in answers] == [False] * 3
    assert answers[0].model.status == "ready"
    assert (await node.supervisor.load(LoadRequest(model_id), ignore_progress)).already_loaded


async def test_a_caller_that_gives_up_does_not_stop_the_load(node: Node) -> None:
    model_id = node.library.add("slow")
    load = asyncio.create_task(node.supervisor.load(LoadRequest(model_id), ignore_progress))
    await wait_until_async(lambda: node.supervisor.model(model_id).status == "loading")

    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    let_go(node, model_id)

    await wait_until_async(lambda: node.supervisor.model(model_id).status == "ready")
    assert tokens_of(await collect(node.submit(model_id, [10], max_tokens=1))) == [11]


async def test_loading_leaves_other_models_running(node: Node) -> None:
    running, slow = await node.loaded(), node.library.add("slow")
    load = asyncio.create_task(node.supervisor.load(LoadRequest(slow), ignore_progress))
    await wait_until_async(lambda: node.supervisor.model(slow).status == "loading")

    items = await collect(node.submit(running, [10], max_tokens=MUCH))

    assert len(tokens_of(items)) == MUCH
    let_go(node, slow)
    await load


async def test_a_load_that_fails_tells_everyone_and_can_be_tried_again(node: Node) -> None:
    model_id = node.library.add("bad")

    loads = [node.supervisor.load(LoadRequest(model_id), ignore_progress) for _ in range(2)]
    outcomes = await asyncio.gather(*loads, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ModelLoadFailed] * 2
    view = node.supervisor.model(model_id)
    assert view.status == "failed"
    assert view.servable.detail == f"cannot load {model_id}: the file is truncated"
    with pytest.raises(ModelLoadFailed, match="truncated"):
        await node.load(model_id)
    assert node.library.fetches == 2


async def test_what_cannot_be_loaded_is_refused_in_words(node: Node) -> None:
    model_id = node.library.add("counting")
    huge = node.library.add("huge", num_parameters=10**13)

    with pytest.raises(ModelNotFound):
        await node.load(ModelId("file:nothing"))
    with pytest.raises(OutOfMemory, match=r"weights \d+ in float32 \+ KV cache \d+ \+ act"):
        await node.load(huge)
    for request, named in (
        (LoadRequest(model_id, harness="candle"), "harness"),
        (LoadRequest(model_id, tensor_parallel=2), "tensor_parallel"),
        (LoadRequest(model_id, quant="q6k"), "quant"),
        (LoadRequest(model_id, devices=[DeviceName("cuda-7")]), "devices"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await node.supervisor.load(request, ignore_progress)
        assert caught.value.param == named


async def test_names_that_nobody_has_do_not_pile_up(node: Node) -> None:
    for number in range(MAX_STRANGERS + 5):
        with pytest.raises(ModelNotFound):
            await node.load(ModelId(f"file:/absent-{number}"))

    assert len(node.supervisor.models()) <= MAX_STRANGERS + 1
    last = node.supervisor.model(ModelId(f"file:/absent-{MAX_STRANGERS + 4}"))
    assert last.servable.reason == "model_not_found"


async def test_a_decision_on_a_stale_state_is_refused(node: Node) -> None:
    stale = node.supervisor.state_version
    model_id = await node.loaded()
    other = node.library.add("other")

    with pytest.raises(Conflict):
        await node.supervisor.load(LoadRequest(other, state_version=stale), ignore_progress)
    with pytest.raises(Conflict):
        await node.supervisor.unload(UnloadRequest(model_id, state_version=stale))

    # What is there already needs no decision.
    joined = LoadRequest(model_id, state_version=stale)
    assert (await node.supervisor.load(joined, ignore_progress)).already_loaded
    fresh = node.supervisor.state_version
    await node.supervisor.load(LoadRequest(other, state_version=fresh), ignore_progress)


async def test_unload_waits_for_what_runs(paced_node: Node) -> None:
    model_id = await paced_node.loaded()
    stream = paced_node.submit(model_id, [10], max_tokens=MUCH)
    await wait_until_async(lambda: stream.paused)

    unload = asyncio.create_task(paced_node.supervisor.unload(UnloadRequest(model_id)))
    await wait_until_async(lambda: paced_node.supervisor.model(model_id).status == "draining")
    with pytest.raises(ModelNotLoaded):
        paced_node.submit(model_id, [10])
    with pytest.raises(Conflict):
        await paced_node.load(model_id)

    assert len(tokens_of(await collect(stream))) == MUCH
    await unload
    assert paced_node.supervisor.model(model_id).status == "unloaded"


async def test_unload_of_an_idle_model_only_is_refused_while_something_runs(node: Node) -> None:
    model_id = await node.loaded()
    stream = node.submit(model_id, [10], max_tokens=MUCH)

    with pytest.raises(Conflict, match="requests run on it"):
        await node.supervisor.unload(UnloadRequest(model_id, only_idle=True))

    assert len(tokens_of(await collect(stream))) == MUCH
    await node.supervisor.unload(UnloadRequest(model_id, only_idle=True))
    assert node.supervisor.model(model_id).status == "unloaded"


async def test_unload_does_not_wait_for_ever(make_node: Callable[..., Node]) -> None:
    node = make_node(unload_drain_s=0.1, backend=PACED)
    await node.start()
    model_id = await node.loaded()
    stream = node.submit(model_id, [10], max_tokens=MUCH)
    await wait_until_async(lambda: stream.paused)

    await node.supervisor.unload(UnloadRequest(model_id))

    with pytest.raises(ModelNotLoaded, match="unloaded"):
        await collect(stream)
    await node.load(model_id)


async def test_forced_unload_fails_what_runs_on_that_model(paced_node: Node) -> None:
    model_id, other = await paced_node.loaded(), paced_node.library.add("other")
    await paced_node.load(other)
    stream = paced_node.submit(model_id, [10], max_tokens=MUCH)
    await stream.take(WAIT_S)

    await paced_node.supervisor.unload(UnloadRequest(model_id, force=True))

    with pytest.raises(ModelUnloaded, match="by an operator"):
        await collect(stream)
    assert tokens_of(await collect(paced_node.submit(other, [10], max_tokens=1))) == [11]


async def test_unload_during_a_load_ends_both(node: Node) -> None:
    model_id = node.library.add("slow")
    load = asyncio.create_task(node.supervisor.load(LoadRequest(model_id), ignore_progress))
    await wait_until_async(lambda: node.supervisor.model(model_id).status == "loading")
    unload = asyncio.create_task(node.supervisor.unload(UnloadRequest(model_id)))
    await asyncio.sleep(0)

    let_go(node, model_id)

    with pytest.raises(ModelNotLoaded, match="asked to be unloaded"):
        await load
    assert (await unload).model_id == model_id
    with pytest.raises(ModelNotLoaded):
        await node.supervisor.unload(UnloadRequest(model_id))


async def test_a_load_that_takes_too_long_is_ended(make_node: Callable[..., Node]) -> None:
    node = make_node(load_deadline_s=0.3)
    await node.start()
    slow = node.library.add("slow")

    with pytest.raises(Exception, match=r"took 0\.3 s"):
        await node.load(slow)

    await wait_until_async(lambda: node.restarts == 1, timeout_s=60.0)


async def test_default_models_are_loaded_in_sequence(node: Node) -> None:
    requests = [LoadRequest(node.library.add(name)) for name in ("one", "bad", "two")]

    await node.supervisor.activate(requests)

    activation = node.supervisor.health().activation
    assert activation.state == "done"
    assert activation.completed == ["file:one", "file:two"]
    assert [failed.model_id for failed in activation.failed] == ["file:bad"]


async def test_models_lists_what_is_on_disk_and_what_is_loaded(node: Node) -> None:
    loaded, idle = await node.loaded("one"), node.library.add("two")

    views = {view.id: view for view in node.supervisor.models()}

    assert views[loaded].status == "ready"
    assert views[loaded].weights_id == "counting"
    assert views[loaded].limit.context == 2048
    assert views[idle].status == "unloaded"
    assert views[idle].devices == []


async def test_the_size_of_what_is_not_loaded_is_that_of_its_profiles_weights(node: Node) -> None:
    model_id = node.library.add("counting", num_parameters=100_000_000)

    node.profiles[model_id] = ModelProfile(dtype="float32")
    (wide,) = node.supervisor.models()
    node.profiles[model_id] = ModelProfile(dtype="int8")
    (narrow,) = node.supervisor.models()

    assert (wide.status, wide.size_mb) == ("unloaded", 381)
    assert narrow.size_mb is not None
    assert narrow.size_mb < 200


async def test_a_size_is_left_out_where_no_device_has_such_weights(node: Node) -> None:
    made = tiny_model(ModelId("file:encoder"))
    encoder = node.library.adopt(msgspec.structs.replace(made, capabilities=("embeddings",)))
    node.profiles[encoder] = ModelProfile(dtype="int4")

    assert node.supervisor.model(encoder).size_mb is None
