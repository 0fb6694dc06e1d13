"""A model library over a folder of manifests, without sources."""

from pathlib import Path

import msgspec

from cortex_core.errors import ModelNotFound
from cortex_core.ids import ModelId
from cortex_core.model_folder import MANIFEST, WeightsFile
from cortex_core.neuron_api import LoadProgress
from neurond.sources.layer_weights import LayerWeights
from neurond.sources.prepared import PreparedModel
from neurond.supervisor.ports import ProgressCallback


def tiny_model(model_id: ModelId, *, num_parameters: int = 1_000_000) -> PreparedModel:
    return PreparedModel(
        model_id=model_id,
        kind="safetensors",
        weights=(WeightsFile("model.safetensors", 2 * num_parameters, "0" * 64),),
        architecture="CountingForCausalLM",
        context_tokens=2048,
        vocab_size=1000,
        num_parameters=num_parameters,
        layers=LayerWeights(num_parameters, 2 * num_parameters),
        hidden_size=8,
        num_layers=1,
        num_kv_heads=1,
        head_dim=8,
        eos_token_ids=(0,),
    )


class FolderLibrary:
    """Models under `root`; each `ensure` is counted, so that tests see single flight."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._models: dict[ModelId, PreparedModel] = {}
        self.fetches = 0

    def add(self, name: str, **changes: int) -> ModelId:
        model_id = ModelId(f"file:{name}")
        self._models[model_id] = tiny_model(model_id, **changes)
        folder = self.root / name
        folder.mkdir()
        (folder / MANIFEST).write_bytes(msgspec.json.encode(self._models[model_id]))
        return model_id

    def adopt(self, prepared: PreparedModel) -> ModelId:
        """Take a model whose folder was made elsewhere, under `root`."""
        self._models[prepared.model_id] = prepared
        return prepared.model_id

    def folder(self, model_id: ModelId) -> Path:
        return self.root / model_id.removeprefix("file:")

    async def ensure(self, model_id: ModelId, on_progress: ProgressCallback) -> Path:
        self.fetches += 1
        if model_id not in self._models:
            raise ModelNotFound(f"cannot find {model_id!r}", param="model")
        on_progress(LoadProgress("fetching", 0.5))
        return self.folder(model_id)

    def prepared(self) -> list[PreparedModel]:
        return list(self._models.values())
