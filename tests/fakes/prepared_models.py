"""Prepared model folders, made by hand: from a GGUF file, or from a small random model."""

import hashlib
import shutil
from pathlib import Path

import msgspec
from transformers import AutoConfig, PreTrainedModel

from cortex_core.ids import ModelId
from cortex_core.model_folder import MANIFEST, WeightsFile
from neurond.sources.gguf import read_header
from neurond.sources.layer_weights import layer_weights
from neurond.sources.positions import served_positions
from neurond.sources.prepared import PreparedModel
from neurond.sources.safetensors_header import read_tensors


def prepare_gguf(gguf: Path, folder: Path) -> PreparedModel:
    """Make `folder` a prepared model of the GGUF file at `gguf`, without a tokenizer."""
    folder.mkdir(parents=True)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.save_pretrained(folder)
    (folder / gguf.name).hardlink_to(gguf) if _same_disk(gguf, folder) else shutil.copy(
        gguf, folder
    )
    return write_manifest(folder, "gguf", config)


def prepare_model(model: PreTrainedModel, folder: Path, **changes: object) -> PreparedModel:
    """Make `folder` a prepared model of `model`'s weights, as safetensors.

    `changes` are fields of the manifest.
    """
    model.save_pretrained(folder, max_shard_size="200KB")
    return write_manifest(folder, "safetensors", model.config, **changes)


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def write_manifest(folder: Path, kind: str, config: object, **changes: object) -> PreparedModel:
    """Make a folder with weights and config a prepared model; `changes` are of the manifest."""
    text = config.get_text_config()
    files = [path for path in sorted(folder.iterdir()) if path.suffix == f".{kind}"]
    weights = tuple(WeightsFile(path.name, path.stat().st_size, _sha256(path)) for path in files)
    tensors = read_header(files[0]).stored_tensors() if kind == "gguf" else read_tensors(files)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    manifest = PreparedModel(
        model_id=ModelId(f"file:{folder.name}"),
        kind=kind,
        weights=weights,
        architecture=(getattr(config, "architectures", None) or [config.model_type])[0],
        context_tokens=served_positions(text),
        vocab_size=text.vocab_size,
        num_parameters=sum(tensor.elements for tensor in tensors),
        layers=layer_weights(tensors),
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=head_dim,
        eos_token_ids=(),
    )
    manifest = msgspec.structs.replace(manifest, **changes)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
