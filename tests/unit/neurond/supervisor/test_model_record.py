"""What a model is taken to hold of a device's memory."""

from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import LoadRequest
from neurond.memory_plan import MemoryPlan
from neurond.protocol import ModelLoaded
from neurond.supervisor.model_record import ModelRecord, Reservation

CPU = DeviceName("cpu")
PLAN = MemoryPlan("int8", 4096, 4, weights_bytes=1000, kv_cache_bytes=100, activation_bytes=50)


def loading() -> ModelRecord:
    model = ModelRecord(LoadRequest(ModelId("file:m")))
    model.lifecycle.load_requested()
    model.lifecycle.fetched()
    model.device, model.plan = CPU, PLAN
    return model


def loaded(activation_bytes: int | None) -> ModelLoaded:
    return ModelLoaded(
        ModelId("file:m"),
        weights_id="w",
        weights_bytes=900,
        kv_cache_bytes=90,
        num_blocks=1,
        context_tokens=16,
        dtype="int8",
        kernels="portable",
        activation_bytes=activation_bytes,
    )


def test_what_is_planned_is_held_until_the_actor_says_what_it_is() -> None:
    model = loading()
    assert model.reservation == Reservation(CPU, 1150, arriving=True)
    model.loaded = loaded(None)
    assert model.reservation == Reservation(CPU, 1040, arriving=False)
    model.loaded = loaded(7)
    assert model.reservation == Reservation(CPU, 997, arriving=False)
