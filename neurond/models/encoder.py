"""Encoders such as BERT: loaded as transformers has them, run over whole inputs at once.

Attention looks both ways and nothing is kept between steps, so there is no cache and no paging.
Inputs of a step are padded to the longest; that padding changes nothing is tried out at load.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from cortex_core.errors import ErrorInfo, ModelLoadFailed, OutOfMemory
from neurond.engine.device import Device
from neurond.engine.embedding import EmbedInput
from neurond.models.loader import (
    TORCH_DTYPES,
    build_model,
    check_files,
    load_safetensors,
    read_config,
    weights_bytes,
)
from neurond.models.pooling import vectors_of
from neurond.sources.prepared import Pooling, PreparedModel

ATTENTION = "sdpa"
_TRIAL = ((2, 3, 4, 5, 6), (7, 8))
"""Token ids of the inputs that are tried at load; every vocabulary has them."""
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


class Encoder:
    """An encoder on its device. See `neurond.engine.embedding.Embedder`."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        self._model = model
        self._pooling = pooling
        self._pad_id: int = getattr(model.config, "pad_token_id", None) or 0
        self.dimensions: int = model.config.hidden_size
        self.max_input_tokens = _positions(model)
        self.weights_bytes = weights_bytes(model)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        """See `Embedder.embed`.

        Raises:
            OutOfMemory: the device has no memory for the step's activations.
        """
        try:
            states = self.states([each.token_ids for each in inputs])
        except torch.OutOfMemoryError as ex:
            tokens = sum(len(each.token_ids) for each in inputs)
            raise OutOfMemory(f"cannot compute a step of {tokens} tokens: {ex}") from ex
        return vectors_of(states.float().cpu().numpy(), inputs, self._pooling)

    def states(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the last hidden states of all tokens [T, hidden], one input behind another."""
        longest = max(map(len, inputs))
        padded = [[*ids, *[self._pad_id] * (longest - len(ids))] for ids in inputs]
        device = self._model.device
        lengths = torch.tensor([len(ids) for ids in inputs], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        output = self._model(
            input_ids=torch.tensor(padded, device=device), attention_mask=mask.long()
        )
        states: torch.Tensor = output.last_hidden_state[mask]
        return states


def _positions(model: PreTrainedModel) -> int:
    """Return how many tokens have a position: RoBERTa and its like begin behind the padding's."""
    most: int = model.config.max_position_embeddings
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == most:
            return most if module.padding_idx is None else most - module.padding_idx - 1
    return most


def load_encoder(
    folder: Path,
    manifest: PreparedModel,
    dtype: str,
    device: Device,
    on_progress: Callable[[float], None],
) -> Encoder:
    """Load the prepared encoder in `folder`; arguments are those of `loader.load_model`.

    Raises:
        ModelLoadFailed: names the file, or the architecture, and what is wrong with it.
    """
    assert manifest.pooling is not None, "an encoder is prepared with its pooling"
    torch_dtype = TORCH_DTYPES[dtype]
    check_files(folder, manifest)
    model = build_model(AutoModel, read_config(folder), torch_dtype, ATTENTION)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # type: ignore[assignment]  # not used, and not in every file
    load_safetensors(model, folder, manifest, device.torch_device, on_progress)
    model.eval().requires_grad_(requires_grad=False)
    encoder = Encoder(model, manifest.pooling)
    _check_padding(encoder, manifest, _TOLERANCE[torch_dtype])
    return encoder


@torch.inference_mode()
def _check_padding(encoder: Encoder, manifest: PreparedModel, tolerance: float) -> None:
    """Refuse a model that sees the padding of a batch: its vectors would depend on the others."""
    together = encoder.states(_TRIAL)
    alone = torch.cat([encoder.states([ids]) for ids in _TRIAL])
    if not torch.allclose(together, alone, rtol=tolerance, atol=tolerance):
        raise ModelLoadFailed(
            f"cannot serve {manifest.architecture}: its states depend on what is padded beside them"
        )
