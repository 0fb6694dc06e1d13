"""What computes, as a node tells it over HTTP: the kernels that this processor runs."""

from pathlib import Path

from cortex_core.neuron_api import Discovery, ModelsResponse
from neurond.kernels.library import Kernels
from neurond.kernels.variants import load_kernels
from tests.fakes.real_node import TINY, add_tiny, real_node
from tests.fakes.wire import decoded


def test_discovery_and_models_name_the_variant_that_computes(tmp_path: Path) -> None:
    best = load_kernels()
    assert isinstance(best, Kernels), best.reason
    add_tiny(tmp_path / "state")
    with real_node(tmp_path) as node:
        (device,) = decoded(node.get("/discovery"), Discovery).devices
        assert (device.attention_backend, device.kernels) == ("cpu-kernels", best.variant)
        assert device.kernels_unavailable_reason is None
        assert node.post("/models/load", json={"model_id": TINY}).status_code == 200
        (model,) = decoded(node.get("/models"), ModelsResponse).models
        assert (model.status, model.kernels) == ("ready", best.variant)
