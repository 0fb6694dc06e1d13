"""GGUF tensors under the names, in the layout and with the values that transformers expects.

Names come from the `gguf` package; the reordering that llama.cpp applied is undone by
transformers' own tensor processors. Values are dequantised by `gguf`'s numpy code, in large
pieces: its public `dequantize` takes 16 rows at a time and is four times slower on small rows.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import quants
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    Gemma2TensorProcessor,
    LlamaTensorProcessor,
    NemotronTensorProcessor,
    TensorProcessor,
)

from cortex_core.errors import ModelLoadFailed
from neurond.models.file_matrix import FileMatrix
from neurond.models.weights import LazyTensor, LoadProgress
from neurond.sources.gguf import GgufHeader, TensorEntry, read_header, tensor_bytes
from neurond.sources.layer_weights import StoredTensor

PIECE_BLOCKS = 4096
"""Quantisation blocks that are dequantised at once: 128 thousand values stay in a core's cache."""

ROPE_FACTORS = "rope_freqs.weight"
ROPE_FACTORS_LONG = "rope_factors_long.weight"

_PROCESSORS_OF_ROWS = (
    *(TensorProcessor, LlamaTensorProcessor, Gemma2TensorProcessor, NemotronTensorProcessor),
)
"""Those that leave matrices as they are, but for the order of their rows. What others change is
read whole, of models that `beyond_plans` refuses first where they would be packed."""

_PARAMETER = re.compile(r"(?P<name>.*?)(?P<suffix>\.weight|\.bias)?")


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor of the file, and the name under which the processor knows it."""

    tensor: TensorEntry
    key: str


class GgufWeights:
    """A GGUF file, mapped into memory; its header is read on construction.

    Raises:
        ModelLoadFailed: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = read_header(path)
        self._data = np.memmap(path, dtype=np.uint8, mode="r")[self._header.data_start :]

    def state_dict(
        self, model: PreTrainedModel, on_progress: Callable[[float], None], *, leave_matrices: bool
    ) -> dict[str, LazyTensor]:
        """Return the weights that the file has for `model`, none of them read yet.

        Args:
            leave_matrices: have them read as `FileMatrix`, where the file has their rows.

        Raises:
            ModelLoadFailed: the file is of an unknown architecture.
        """
        architecture = str(self._header.metadata.get("general.architecture"))
        kind: type[TensorProcessor] = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
        processor = kind(config=model.config.to_dict())
        names = _name_map(self._path, architecture, model.config.num_hidden_layers)
        sources = _find_sources(self._header, model.state_dict(), names, processor)
        used = {source.tensor for found in sources.values() for source in found}
        progress = LoadProgress(sum(tensor_bytes(tensor) for tensor in used), on_progress)

        def lazy(name: str, found: list[_Source]) -> LazyTensor:
            size_bytes = sum(tensor_bytes(source.tensor) for source in found)
            is_left = leave_matrices and _has_rows(found, processor)
            read = partial(_leave if is_left else _read, self._data, processor, name, found)
            is_wide = any(_is_wide(source.tensor) for source in found)
            return LazyTensor(read, size_bytes, progress, is_wide)

        return {name: lazy(name, found) for name, found in sources.items()}

    def rope_factors(self) -> torch.Tensor | None:
        """Return what the file divides rotary frequencies by, [head_dim / 2], or None.

        Llama 3 scales its frequencies, and a GGUF says so by a tensor and not in its config.

        Raises:
            ModelLoadFailed: the file has factors that depend on the length of the context.
        """
        tensors = {tensor.name: tensor for tensor in self._header.tensors}
        if ROPE_FACTORS_LONG in tensors:
            raise ModelLoadFailed(
                f"cannot serve {self._path}: its rotary scaling depends on the length of the "
                "context, which cannot be batched"
            )
        factors = tensors.get(ROPE_FACTORS)
        return None if factors is None else torch.from_numpy(dequantize(self._data, factors).copy())


def dequantize(
    data: NDArray[np.uint8], tensor: TensorEntry, rows: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return the values of `tensor`, in torch's order of dimensions.

    Args:
        data: all tensor data of the file.
        rows: first and behind the last one of those to return, of a matrix that `_has_rows`.

    Raises:
        ModelLoadFailed: nothing here knows its quantisation.
    """
    raw = data[tensor.offset : tensor.offset + tensor_bytes(tensor)]
    shape = tuple(reversed(tensor.shape))
    if rows is not None:
        row_bytes = len(raw) // shape[0]
        raw = raw[rows[0] * row_bytes : rows[1] * row_bytes]
        shape = (rows[1] - rows[0], *shape[1:])
    kind = gguf.GGMLQuantizationType(tensor.ggml_type)
    if kind is gguf.GGMLQuantizationType.F32:
        return raw.view(np.float32).reshape(shape)
    if kind is gguf.GGMLQuantizationType.F16:
        return raw.view(np.float16).astype(np.float32).reshape(shape)
    codec = getattr(quants, kind.name, None)
    if codec is None:
        raise ModelLoadFailed(
            f"cannot read tensor {tensor.name!r}: values of type {kind.name} are not supported; "
            "use a model in another quantisation such as Q4_K_M or Q8_0"
        )
    codec.init_grid()
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = raw.reshape(-1, block_bytes)
    values = np.empty((len(blocks), block_values), np.float32)
    for start in range(0, len(blocks), PIECE_BLOCKS):
        piece = slice(start, start + PIECE_BLOCKS)
        values[piece] = codec.dequantize_blocks(blocks[piece])
    return values.reshape(shape)


def _is_wide(tensor: TensorEntry) -> bool:
    return StoredTensor(tensor.name, tensor.shape, tensor_bytes(tensor)).is_wide


def _has_rows(sources: list[_Source], processor: TensorProcessor) -> bool:
    """Whether these are a matrix whose rows can be read one by one."""
    shape = sources[0].tensor.shape
    if len(sources) > 1 or len(shape) != 2 or type(processor) not in _PROCESSORS_OF_ROWS:
        return False
    block_values, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(sources[0].tensor.ggml_type)]
    return shape[0] % block_values == 0


def _leave(
    data: NDArray[np.uint8], processor: TensorProcessor, _name: str, sources: list[_Source]
) -> FileMatrix:
    """Return one parameter unread; raises as `_read` does."""
    tensor = sources[0].tensor
    columns, num_rows = tensor.shape
    numbers = np.arange(num_rows)
    order = processor.process(weights=numbers[:, None], name=tensor.name).weights[:, 0]
    dequantize(data, tensor, (0, 0))  # says whether it can be
    in_order = np.array_equal(order, numbers)
    read = partial(_read_rows, data, tensor, None if in_order else order.copy())
    return FileMatrix((num_rows, columns), read)


def _read_rows(
    data: NDArray[np.uint8],
    tensor: TensorEntry,
    order: NDArray[np.int64] | None,
    first: int,
    stop: int,
) -> torch.Tensor:
    if order is None or first == stop:
        return _owned(dequantize(data, tensor, (first, stop)))
    wanted = order[first:stop]  # side by side in the file but for their order, within a head
    begin = int(wanted.min())
    rows = dequantize(data, tensor, (begin, int(wanted.max()) + 1))
    return torch.from_numpy(rows[wanted - begin])


def _read(
    data: NDArray[np.uint8], processor: TensorProcessor, name: str, sources: list[_Source]
) -> torch.Tensor:
    """Read one parameter. Several sources (gate and up of experts) are merged by the processor."""
    keys = {source.key: name for source in sources}
    merged: dict[str, torch.Tensor] = {}
    for source in sources:
        result = processor.process(
            weights=dequantize(data, source.tensor),
            name=source.tensor.name,
            tensor_key_mapping=keys,
            parsed_parameters={"tensors": merged},
        )
    if name in merged:
        return merged[name]
    return _owned(result.weights)


def _owned(weights: NDArray[np.float32]) -> torch.Tensor:
    """Copy values that still lie in the mapped file, which is read-only and may be removed."""
    return torch.from_numpy(
        np.array(weights) if not weights.flags.writeable else np.ascontiguousarray(weights)
    )


def _find_sources(
    header: GgufHeader,
    parameters: Iterable[str],
    names: gguf.TensorNameMap,
    processor: TensorProcessor,
) -> dict[str, list[_Source]]:
    """Return the file's tensors for each parameter that it has any for."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found: dict[str, list[_Source]] = {}
    for parameter in parameters:
        sources = [
            _Source(tensor, key)
            for key in _gguf_names(names, processor, parameter)
            if (tensor := tensors.get(key) or tensors.get(f"{key}.weight"))
        ]
        if sources:
            found[parameter] = sources
    return found


def _gguf_names(names: gguf.TensorNameMap, processor: TensorProcessor, parameter: str) -> list[str]:
    """Return what the file may call `parameter`."""
    match = _PARAMETER.fullmatch(processor.preprocess_name(parameter))
    assert match is not None
    name, suffix = match["name"], match["suffix"] or ""
    candidates = []
    for candidate in (name, name.partition(".")[2]):
        known = names.get_name(candidate)
        if known is not None:
            candidates.append(f"{known}{suffix}")
    fallback: dict[str, str] = {}
    processor.perform_fallback_tensor_mapping(fallback, suffix, "", parameter)
    return [*dict.fromkeys(candidates), *fallback]


def _name_map(path: Path, architecture: str, num_layers: int) -> gguf.TensorNameMap:
    for known, name in gguf.MODEL_ARCH_NAMES.items():
        if name == architecture:
            return gguf.get_tensor_name_map(known, num_layers)
    raise ModelLoadFailed(f"cannot read {path}: its architecture {architecture!r} is unknown")
