"""The node's state in the types of its HTTP API."""

import platform
import socket
from typing import Final, get_args

import msgspec

from cortex_core import __version__
from cortex_core.neuron_api import (
    DeviceHealth,
    DeviceInfo,
    Discovery,
    DraftUse,
    KvDtype,
    KvUse,
    ModelLimit,
    NodeModel,
    Servable,
)
from cortex_core.sizes import MIB
from neurond.devices import Devices, DeviceSample
from neurond.protocol import ModelLoaded
from neurond.sources.prepared import PreparedModel
from neurond.supervisor.device import DeviceActor
from neurond.supervisor.model_record import ModelRecord

HARNESS = "torch"
EMBEDDINGS = "embeddings"
KV_DTYPES: Final = get_args(KvDtype)
"""Of a device that has the CPU kernels."""
TORCH_KV_DTYPES: Final[tuple[KvDtype, ...]] = ("bfloat16",)


def discovery_view(devices: Devices, actors: list[DeviceActor], boot_id: str) -> Discovery:
    """Describe the host; `attention_backend` is known once an actor was ready."""
    return Discovery(
        hostname=socket.gethostname(),
        os=_os_name(),
        kernel=platform.release(),
        devices=[_device_info(actor) for actor in actors],
        harnesses=[HARNESS],
        version=__version__,
        boot_id=boot_id,
        cuda_version=devices.cuda_version,
        driver_version=devices.driver_version,
        cuda_unavailable_reason=devices.cuda_unavailable_reason,
    )


def health_view(actor: DeviceActor, sample: DeviceSample, *, draining: bool) -> DeviceHealth:
    """Describe a device as it was just measured."""
    return DeviceHealth(
        index=actor.info.index,
        id=actor.info.id,
        state="draining" if draining and actor.state == "ready" else actor.state,
        vram_used_mb=sample.used_bytes // MIB,
        vram_free_mb=sample.free_bytes // MIB,
        utilization_pct=sample.utilization_pct,
        temp_c=sample.temp_c,
        restarts=actor.restarts,
    )


def model_view(
    model: ModelRecord | None,
    prepared: PreparedModel | None,
    actor: DeviceActor | None,
    expected_bytes: int | None,
) -> NodeModel:
    """Describe a model that is on disk, was asked for, or both.

    Args:
        expected_bytes: what the weights would take, of a model that is on disk.
    """
    known = model.model_id if model else prepared.model_id if prepared else None
    assert known is not None, "a model is known from somewhere"
    loaded = model.loaded if model else None
    running, waiting = actor.counts(known) if actor else (0, 0)
    context = loaded.context_tokens if loaded else prepared.context_tokens if prepared else None
    return NodeModel(
        id=known,
        harness=HARNESS,
        status=model.lifecycle.state if model else "unloaded",
        devices=[model.device] if model and model.device else [],
        vram_used_mb=(loaded.weights_bytes + loaded.kv_cache_bytes) // MIB if loaded else 0,
        capabilities=_capabilities(prepared, loaded) if prepared else [],
        limit=ModelLimit(context=context),
        servable=_servable(model, actor),
        loading=model.progress if model else None,
        running=running,
        waiting=waiting,
        kv=_kv_use(model),
        drafts=_draft_use(model),
        embedding=loaded.embedding if loaded else None,
        weights_id=loaded.weights_id if loaded else None,
        size_mb=_size_mb(model, expected_bytes),
        dtype=loaded.dtype if loaded else None,
        kv_dtype=loaded.kv_dtype if loaded else None,
        kernels=loaded.kernels if loaded else None,
        kernels_unavailable_reason=loaded.kernels_unavailable_reason if loaded else None,
    )


def _size_mb(model: ModelRecord | None, expected_bytes: int | None) -> int | None:
    if model is not None and model.loaded is not None:
        return model.loaded.weights_bytes // MIB
    if model is not None and model.plan is not None:
        return model.plan.weights_bytes // MIB
    return None if expected_bytes is None else expected_bytes // MIB


def _capabilities(prepared: PreparedModel, loaded: ModelLoaded | None) -> list[str]:
    """What the model can do; whether a decoder's states can be had shows when it is loaded."""
    if loaded is not None and loaded.embedding is None:
        return [name for name in prepared.capabilities if name != EMBEDDINGS]
    return list(dict.fromkeys((*prepared.capabilities, EMBEDDINGS)))


def _kv_use(model: ModelRecord | None) -> KvUse | None:
    if model is None or model.loaded is None or model.kv_usage is None:
        return None
    blocks, usage = model.loaded.num_blocks, model.kv_usage
    return KvUse(
        blocks=blocks,
        used=blocks - usage.num_available_blocks,
        cached=usage.num_cached_blocks,
        preemptions=usage.num_preemptions,
    )


def _draft_use(model: ModelRecord | None) -> DraftUse | None:
    usage = model.kv_usage if model is not None and model.loaded is not None else None
    if usage is None or not usage.num_drafted_tokens:
        return None
    return DraftUse(drafted=usage.num_drafted_tokens, accepted=usage.num_accepted_tokens)


def _servable(model: ModelRecord | None, actor: DeviceActor | None) -> Servable:
    if model is not None and model.lifecycle.error is not None:
        error = model.lifecycle.error
        return Servable(ok=False, reason=error.code, detail=error.message)
    if actor is not None and actor.state == "failed":
        return Servable(ok=False, reason="device_failed", detail=actor.failure.message)
    return Servable(ok=True)


def _device_info(actor: DeviceActor) -> DeviceInfo:
    info, opened = actor.info, actor.opened
    return msgspec.structs.replace(
        info,
        attention_backend=actor.attention_backend,
        kernels=opened.kernels if opened else None,
        kernels_unavailable_reason=opened.kernels_unavailable_reason if opened else None,
        kv_dtypes=list(KV_DTYPES if opened.kernels else TORCH_KV_DTYPES) if opened else [],
    )


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
