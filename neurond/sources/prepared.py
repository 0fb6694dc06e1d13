"""A model on disk, ready to be loaded, tokenised and counted without transformers.

Fetching ends with a prepare process that writes this folder:

    <state_dir>/models/<scheme>/<quoted name>/    see `cortex_core.model_folder`
        model.json              this module's `PreparedModel`; written last, so it means complete
        config.json             transformers' model config
        tokenizer.json          for the `tokenizers` library
        chat_template.jinja     absent where the model has none
        *.gguf | *.safetensors | script.toml    the weights, as `weights` names them
"""

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import ModelLoadFailed
from cortex_core.ids import ModelId
from cortex_core.model_folder import FORMAT, MANIFEST, AnyManifest, WeightsFile
from neurond.sources.layer_weights import LayerWeights

CHAT_TEMPLATE = "chat_template.jinja"


class Pooling(msgspec.Struct, frozen=True):
    """How the states of an input's tokens become its vector."""

    mode: Literal["mean", "cls", "last", "max"]
    normalize: bool
    """Scale it to length 1."""


DECODER_POOLING = Pooling("last", normalize=True)
"""Of a decoder whose files do not say otherwise: its last token has seen all of the input."""


class ImageTokens(msgspec.Struct, frozen=True):
    """What stands in a prompt for the images that a model takes."""

    placeholder: str
    """Written by the chat template, once for an image."""
    token: str
    """Stands in the prompt once for each feature; often the same text."""
    token_id: int
    in_place: bool = False
    """Whether features only go in place of embeddings and positions are the tokens' places, so that
    the CPU kernels may compute what is behind the tower."""
    tower_parameters: int = 0
    """Of what is no part of the language model; known where it is `in_place`."""


class PreparedModel(msgspec.Struct, frozen=True):
    """The manifest of a prepared model."""

    model_id: ModelId
    kind: Literal["gguf", "safetensors", "script"]
    weights: tuple[WeightsFile, ...]
    architecture: str
    """Class name in transformers, for example `LlamaForCausalLM`."""
    context_tokens: int
    vocab_size: int
    num_parameters: int
    layers: LayerWeights
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    eos_token_ids: tuple[int, ...]
    bos_token: str | None = None
    eos_token: str | None = None
    adds_bos: bool = False
    """Whether plain text gets the model's begin-of-sequence token in front."""
    capabilities: tuple[str, ...] = ("completions",)
    pooling: Pooling | None = None
    """As sentence-transformers' files say; always set for an encoder."""
    images: ImageTokens | None = None
    """None where the model takes text only."""
    format: int = FORMAT

    @property
    def generates(self) -> bool:
        """Whether it is a causal language model; an encoder is not."""
        return "completions" in self.capabilities

    @property
    def has_plan(self) -> bool:
        """Whether the CPU kernels may be able to compute it; torch computes what they do not."""
        return self.generates and (self.images is None or self.images.in_place)

    @property
    def weights_hash(self) -> str:
        """16 hex digits that name these weights, all files of them."""
        each = [file.sha256 for file in self.weights]
        whole = each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()
        return whole[:16]


def read_manifest(folder: Path) -> PreparedModel:
    """Read `folder`'s manifest.

    Raises:
        ModelLoadFailed: the manifest is absent, unreadable or of another format.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        written_as = msgspec.json.decode(content, type=AnyManifest).format
        if written_as == FORMAT:
            return msgspec.json.decode(content, type=PreparedModel)
    except (OSError, *UNDECODABLE) as ex:
        raise ModelLoadFailed(f"cannot read {path}: {ex}") from ex
    raise ModelLoadFailed(
        f"cannot read {path}: its format is {written_as}, this version reads {FORMAT}; "
        "pull the model again"
    )
