"""A model's own image processor, as transformers has it, without what it needs for text and video.

Imports transformers, which takes seconds: for the image process and for preparing a model.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from cortex_core.errors import InvalidRequest, ModelLoadFailed
from neurond.sources.prepared import ImageTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


class ProcessedImage(NamedTuple):
    """An image as the model takes it."""

    inputs: dict[str, "NDArray[np.generic]"]
    """Arrays by keyword of the model's `get_image_features`."""
    replacement: str
    """What stands in the prompt in place of what the chat template writes."""


class ModelImageProcessor:
    """Attributes:
    tokens: what stands for images in prompts.
    tokenizer: the model's.
    """

    def __init__(self, folder: Path) -> None:
        """Read the processor of the model in `folder`.

        Raises:
            ModelLoadFailed: it has none, or none that works here.
        """
        try:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self._processor = _read(folder, config)
            self.tokenizer = self._processor.tokenizer
            token_id = int(config.image_token_id)
            self.tokens = ImageTokens(
                placeholder=str(self._processor.image_token),
                token=str(self.tokenizer.convert_ids_to_tokens(token_id)),
                token_id=token_id,
                in_place="mrope_section" not in _rope_parameters(config.get_text_config()),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as ex:
            raise ModelLoadFailed(
                f"cannot read the image processor of {folder}: {str(ex).strip()}"
            ) from ex

    def process(self, image: "Image") -> ProcessedImage:
        """Return what the model sees of an image.

        Raises:
            InvalidRequest: the processor does not take it, for example for its proportions.
        """
        processor = self._processor
        # What its __call__ does, which wants the text too.
        options: dict[str, Any] = processor._merge_kwargs(  # noqa: SLF001
            tokenizer_init_kwargs={}, return_tensors="np"
        )["images_kwargs"]
        try:
            inputs, (replacement,) = processor._process_images([image], **options)  # noqa: SLF001
        except (ValueError, TypeError, ZeroDivisionError, OverflowError) as ex:
            raise InvalidRequest(f"cannot read the image: {ex}") from ex
        # What else there is, such as the number of tiles, was for the replacement.
        names = processor.image_processor.model_input_names
        return ProcessedImage({name: inputs[name] for name in names}, str(replacement))


def _rope_parameters(text_config: Any) -> dict[str, Any]:
    return getattr(text_config, "rope_parameters", None) or {}


def _read(folder: Path, config: Any) -> Any:
    kind: Any = PROCESSOR_MAPPING[type(config)]
    module: Any = sys.modules[kind.__module__]
    if getattr(module, "num2words", module) is None:
        module.num2words = str  # SmolVLM's demands the library, for times in videos

    class ImagesOnly(kind):  # type: ignore[misc]  # a class known when it runs
        """The model's processor without one for video, which needs torchvision."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    parts: dict[str, Callable[[], Any]] = {
        "image_processor": lambda: AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        ),
        "tokenizer": lambda: AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ),
    }
    arguments = [parts[name]() if name in parts else None for name in kind.get_attributes()]
    settings, _ = kind.get_processor_dict(folder, local_files_only=True)
    images_only: Any = ImagesOnly
    return images_only.from_args_and_dict(arguments, settings)
