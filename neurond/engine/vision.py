"""What a model sees in images: features in place of placeholders, and positions in two dimensions.

The vision tower is transformers' own and runs once for an image: when the first of its placeholders
is computed. Its features are kept by the image's key, within bounds, so that the chunks of a
prompt, the choices of a request and the turns of a conversation share them.
"""

from __future__ import annotations

import inspect
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import torch

from cortex_core.errors import CortexError, InternalError, OutOfMemory
from neurond.engine.batch import RowFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from neurond.engine.batch import ImageQueries, Row
    from neurond.engine.images import ImagePrompt, PromptImage

MAX_FEATURES_BYTES: Final = 128 << 20
"""Of features kept for later; those of the image in use are kept in any case."""
DEEP: Final = "deepstack_visual_embeds"
"""What language models call features for their first layers, beside those for their input."""
IMAGE_TYPE: Final = 1
"""What transformers' `mm_token_type_ids` call a placeholder of an image; text is 0."""


@dataclass(frozen=True, slots=True)
class _Positions:
    """Rotary positions of a prompt with images, for models that have three of them (M-RoPE)."""

    of_prompt: torch.Tensor
    """[3, tokens] on the host."""
    delta: int
    """What is added to the place of a token behind the prompt."""


@dataclass(frozen=True, slots=True)
class _Deep:
    """Features for the first layers of the language model, which go along with `embedded`."""

    embedded: torch.Tensor
    arguments: dict[str, Any]


class Vision:
    """The part of a model that looks at images. Called from the runner's one thread.

    Attributes:
        two_way_tokens: most of an image's tokens that see each other both ways; 0 where they
            attend causally. The loader finds it out.
    """

    two_way_tokens = 0

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        *,
        max_features_bytes: int = MAX_FEATURES_BYTES,
    ) -> None:
        self._model: Any = model
        whole: Any = model.base_model
        self._inputs = inspect.signature(whole.get_image_features).parameters
        self._device = device
        self._max_bytes = max_features_bytes
        self._features: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._rope_index: Any = getattr(whole, "get_rope_index", None)
        self._positions: WeakKeyDictionary[ImagePrompt, _Positions] = WeakKeyDictionary()
        self._deep: _Deep | None = None
        decoder: Any = model.get_decoder()
        self._is_deep = DEEP in inspect.signature(decoder.forward).parameters
        if self._is_deep:
            # The model around it takes none that were computed before.
            decoder.register_forward_pre_hook(self._with_deep, with_kwargs=True)

    def inputs(
        self,
        with_images: Sequence[ImageQueries],
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return what the model takes in place of `input_ids` and `position_ids`, both [1, T].

        Raises:
            RowFailed: an image cannot be computed.
        """
        inputs = {"input_ids": input_ids, "position_ids": position_ids}
        if self._rope_index is not None:
            inputs["position_ids"] = self._rotary_positions(with_images, position_ids)
        seen = self._all_seen(with_images)
        if seen is not None:
            places, features = torch.from_numpy(seen[0]).to(self._device), seen[1]
            # A placeholder can be beyond the embedding.
            known_ids = input_ids.index_fill(1, places, 0)
            embedded = self._model.get_input_embeddings()(known_ids)
            features = features.to(embedded.dtype)
            embedded[0, places] = features[0]
            del inputs["input_ids"]
            inputs["inputs_embeds"] = embedded
            self._deep = self._deep_of(embedded, places, features[1:])
        return inputs

    @torch.inference_mode()
    def embeds(
        self, with_images: Sequence[ImageQueries]
    ) -> tuple[array[int], NDArray[np.float32] | None]:
        """Return the placeholders among the batch's tokens, ascending, and what the CPU kernels
        take in place of their embeddings: [placeholders, hidden size], None where there are none.

        Raises:
            RowFailed: an image cannot be computed.
        """
        seen = self._all_seen(with_images)
        if seen is None:
            return array("i"), None
        places, features = seen
        return array("i", places.tolist()), features[0].float().contiguous().numpy()

    @property
    def weights_bytes(self) -> int:
        """Memory of all that the model has, the tower alone where it has no decoder."""
        return sum(each.numel() * each.element_size() for each in self._model.parameters())

    @property
    def is_plain(self) -> bool:
        """Whether features go in place of embeddings alone, and positions are places."""
        return self._rope_index is None and not self._is_deep

    def deep_arguments(self, embedded: torch.Tensor | None) -> dict[str, Any]:
        """Return what else the language model gets with `inputs_embeds`; forgets it."""
        deep, self._deep = self._deep, None
        return deep.arguments if deep is not None and deep.embedded is embedded else {}

    def _with_deep(
        self, _decoder: object, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, named | self.deep_arguments(named.get("inputs_embeds"))

    def _deep_of(
        self, embedded: torch.Tensor, places: torch.Tensor, features: torch.Tensor
    ) -> _Deep | None:
        if not len(features):
            return None
        mask = torch.zeros(embedded.shape[:2], dtype=torch.bool, device=self._device)
        mask[0, places] = True  # ascending, as the features are
        return _Deep(embedded, {"visual_pos_masks": mask, DEEP: list(features)})

    def features(self, image: PromptImage) -> torch.Tensor:
        """Return an image's features, [inputs, placeholders, hidden size], on the device.

        The first are for the language model's input, any others for its first layers.

        Raises:
            CortexError: they cannot be computed.
        """
        known = self._features.get(image.key)
        if known is None:
            known = self._features[image.key] = self._compute(image)
        self._features.move_to_end(image.key)
        while len(self._features) > 1 and self._features_bytes() > self._max_bytes:
            self._features.popitem(last=False)
        return known

    def _all_seen(
        self, with_images: Sequence[ImageQueries]
    ) -> tuple[NDArray[np.int64], torch.Tensor] | None:
        """Return places of placeholders among the batch's tokens, and their features, if any."""
        seen = [found for queries in with_images for found in self._seen(queries)]
        if not seen:
            return None
        places = np.concatenate([places for places, _ in seen])
        return places, torch.cat([features for _, features in seen], dim=1)

    def _seen(self, queries: ImageQueries) -> list[tuple[np.ndarray, torch.Tensor]]:
        """Return the places of placeholders among the batch's tokens, and their features."""
        assert queries.row.images is not None, "a row without images among those with images"
        first, last = queries.position, queries.position + queries.num_tokens
        found = []
        for image in queries.row.images.images:
            if image.stop <= first or last <= image.start:
                continue
            places = np.frombuffer(image.places, np.int32).astype(np.int64)
            begin, end = np.searchsorted(places, (first, last))
            if begin < end:
                features = self._features_for(image, queries.row)[:, begin:end]
                found.append((places[begin:end] - first + queries.at, features))
        return found

    def _features_for(self, image: PromptImage, row: Row) -> torch.Tensor:
        try:
            return self.features(image)
        except CortexError as ex:
            raise RowFailed(row, ex.info()) from ex
        except torch.AcceleratorError:
            raise  # the device is broken, for everybody
        except (RuntimeError, ValueError, IndexError, TypeError) as ex:
            raise RowFailed(row, _cannot_look(f"{type(ex).__name__}: {ex}").info()) from ex

    def _compute(self, image: PromptImage) -> torch.Tensor:
        inputs = {
            name: torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
            for name, values in image.inputs.items()
            if name in self._inputs
        }
        try:
            found = self._model.get_image_features(**inputs, return_dict=True)
        except torch.OutOfMemoryError as ex:
            raise OutOfMemory(f"cannot look at an image: {ex}; send a smaller one") from ex
        deep = getattr(found, "deepstack_features", None) or ()
        features = torch.stack([_flat(each) for each in (found.pooler_output, *deep)])
        num_features = features.shape[1]
        if num_features != len(image.places):
            raise _cannot_look(
                f"the model has {num_features} features for {len(image.places)} placeholder tokens"
            )
        return features

    def _features_bytes(self) -> int:
        return sum(kept.numel() * kept.element_size() for kept in self._features.values())

    def _rotary_positions(
        self, with_images: Sequence[ImageQueries], position_ids: torch.Tensor
    ) -> torch.Tensor:
        rotary = position_ids.expand(3, 1, -1).clone()
        for queries in with_images:
            positions = self._positions_of(queries.row)
            start, stop = queries.position, queries.position + queries.num_tokens
            of_prompt = positions.of_prompt[:, start:stop]
            behind = torch.arange(start + of_prompt.shape[1], stop) + positions.delta
            whole = torch.cat((of_prompt, behind.expand(3, -1)), dim=1)
            rotary[:, 0, queries.at : queries.at + queries.num_tokens] = whole.to(self._device)
        return rotary

    def _positions_of(self, row: Row) -> _Positions:
        images = row.images
        assert images is not None, "a row without images among those with images"
        known = self._positions.get(images)
        if known is None:
            try:
                known = self._compute_positions(row, images)
            except (RuntimeError, ValueError, IndexError, StopIteration) as ex:
                # For example two images side by side, which transformers takes for one.
                why = f"its prompt has no positions: {type(ex).__name__}: {ex}"
                raise RowFailed(row, _cannot_look(why).info()) from ex
            self._positions[images] = known
        return known

    def _compute_positions(self, row: Row, images: ImagePrompt) -> _Positions:
        token_ids = torch.tensor([list(row.token_ids[: row.num_prompt_tokens])])
        types = torch.zeros_like(token_ids)
        for image in images.images:
            types[0, list(image.places)] = IMAGE_TYPE
        wanted = inspect.signature(self._rope_index).parameters
        grids = {
            name: torch.from_numpy(np.concatenate([image.inputs[name] for image in images.images]))
            for name in images.images[0].inputs
            if name in wanted
        }
        of_prompt, delta = self._rope_index(token_ids, mm_token_type_ids=types, **grids)
        return _Positions(of_prompt[:, 0], int(delta[0, 0]))


def _flat(features: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Return features as [placeholders, hidden size], however they are divided."""
    whole = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    return whole.reshape(-1, whole.shape[-1])


def _cannot_look(why: str) -> InternalError:
    return InternalError(f"cannot look at an image: {why}")
