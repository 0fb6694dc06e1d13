"""What can be asked of a node over its admin socket."""

from collections.abc import Mapping

import msgspec

from cortex_core.ipc.admin import Handler, ProgressSink, typed
from cortex_core.neuron_api import (
    Discovery,
    Health,
    LoadRequest,
    LoadResponse,
    ModelsResponse,
    NodeModel,
    UnloadRequest,
    UnloadResponse,
    WaitS,
)
from neurond.node import Node
from neurond.supervisor.supervisor import Supervisor


class Status(msgspec.Struct, frozen=True):
    """The node as `neuron status` shows it."""

    discovery: Discovery
    health: Health
    models: list[NodeModel]


class NoArgs(msgspec.Struct, frozen=True):
    """No arguments."""


class DrainOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """`timeout_s` None is what the configuration says."""

    timeout_s: WaitS | None = None


def admin_handlers(
    node: Node, supervisor: Supervisor, drain_timeout_s: float
) -> Mapping[str, Handler]:
    """Return the verbs: status, discover, models, load, unload, drain."""

    async def status(_args: NoArgs, _progress: ProgressSink) -> Status:
        return Status(node.discovery(), node.health(), node.models().models)

    async def discover(_args: NoArgs, _progress: ProgressSink) -> Discovery:
        return node.discovery()

    async def models(_args: NoArgs, _progress: ProgressSink) -> ModelsResponse:
        return node.models()

    async def load(request: LoadRequest, progress: ProgressSink) -> LoadResponse:
        return await node.load(request, progress)

    async def unload(request: UnloadRequest, _progress: ProgressSink) -> UnloadResponse:
        return await node.unload(request)

    async def drain(order: DrainOrder, _progress: ProgressSink) -> Health:
        await supervisor.drain(drain_timeout_s if order.timeout_s is None else order.timeout_s)
        return node.health()

    return {
        "status": typed(NoArgs, status),
        "discover": typed(NoArgs, discover),
        "models": typed(NoArgs, models),
        "load": typed(LoadRequest, load),
        "unload": typed(UnloadRequest, unload),
        "drain": typed(DrainOrder, drain),
    }
