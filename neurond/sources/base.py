"""What a model source is, and how it tells of its progress."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol


class FetchProgress(NamedTuple):
    """How far a fetch is. Bytes count over all files of the model."""

    stage: Literal["queued", "fetching", "preparing"]
    done_bytes: int = 0
    total_bytes: int | None = None


Report = Callable[[FetchProgress], None]
"""Called at most some ten times a second, on the thread that fetches."""


class Source(Protocol):
    """One place that models come from."""

    def fetch(self, name: str, folder: Path, report: Report) -> None:
        """Put the files of the model `name` into `folder`, which exists.

        Leaves behind what lets an interrupted fetch go on, in `folder / DOWNLOADS`. Blocks; runs
        under the store's lock for this model.

        Raises:
            ModelNotFound: the source has no such model.
            ModelLoadFailed: it cannot be fetched; the message says what to do.
        """
        ...


SIDE_FILES: Final = ("*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt")
"""What may lie beside safetensors and is needed to use them."""
DOWNLOADS = ".downloads"
"""Name of the folder inside a model's folder that holds files under way."""
