"""Where a node keeps a model, and whether it is all there.

    <state_dir>/models/<scheme>/<quoted name>/
        model.json              the manifest; written last, so it means complete
        *.gguf | *.safetensors | script.toml    the weights, as the manifest names them

What else is in the folder, and in the manifest, is the node's own.
"""

import hashlib
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.ids import ModelId, parse_model_id

MANIFEST: Final = "model.json"
FORMAT: Final = 3
"""Of the manifests that this version writes and reads."""
SAFE: Final = "-_.=@+"
MAX_NAME: Final = 200
"""Longest file name made here; file systems stop at 255 bytes, and locks add some."""


class WeightsFile(msgspec.Struct, frozen=True):
    """One file of weights. `name` is relative to the folder."""

    name: str
    size_bytes: int
    sha256: str


class AnyManifest(msgspec.Struct, frozen=True):
    """What manifests of all formats have in common; the first did not name its own."""

    model_id: ModelId
    weights: tuple[WeightsFile, ...]
    format: int = 1


def models_folder(state_dir: Path) -> Path:
    """Return the folder of all models of a node."""
    return state_dir / "models"


def model_folder(state_dir: Path, model_id: ModelId) -> Path:
    """Return where the model lies, or will lie."""
    ref = parse_model_id(model_id, default_scheme="")
    return models_folder(state_dir) / _quoted(ref.scheme) / _quoted(ref.name)


def fetched_manifest(folder: Path) -> AnyManifest | None:
    """Return the manifest, of whatever format, of a model whose weights are all there."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=AnyManifest)
    except (OSError, *UNDECODABLE):
        return None
    return manifest if weights_present(folder, manifest.weights) else None


def weights_present(folder: Path, weights: Iterable[WeightsFile]) -> bool:
    """Tell whether each of these files is in the folder and has its size."""
    try:
        return all((folder / file.name).stat().st_size == file.size_bytes for file in weights)
    except OSError:
        return False


def is_complete(folder: Path) -> bool:
    """Tell whether the model there needs neither fetching nor preparing."""
    manifest = fetched_manifest(folder)
    return manifest is not None and manifest.format == FORMAT


def _quoted(text: str) -> str:
    """Return `text` as one path component that no other text maps to."""
    quoted = urllib.parse.quote(text, safe=SAFE)
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(quoted) > MAX_NAME:
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        quoted = f"{quoted[: MAX_NAME - 25]}~{digest}"
    return quoted
