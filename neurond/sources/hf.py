"""Source `hf:ORG/NAME[:FILE-OR-QUANT]`: repositories of a Hugging Face hub, over its HTTP API.

Without a selection the repository's safetensors are taken, or its one GGUF file. `HF_ENDPOINT`
names another hub, `HF_TOKEN` is sent to it and to nobody it redirects to.
"""

import os
import re
import urllib.parse
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.base import DOWNLOADS, SIDE_FILES, FetchProgress, Report
from neurond.sources.disk import remove_tree, require_space
from neurond.sources.download import Downloader, RemoteFile
from neurond.sources.http import read_document
from neurond.sources.sentence_transformers import is_module_config

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
NAME: Final = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


class _Lfs(msgspec.Struct, frozen=True):
    sha256: str | None = None


class _Sibling(msgspec.Struct, frozen=True):
    rfilename: str
    size: int | None = None
    lfs: _Lfs | None = None


class _Repository(msgspec.Struct, frozen=True):
    siblings: list[_Sibling]
    sha: str = "main"


class HfSource:
    """Fetches from a hub; `endpoint` goes before `HF_ENDPOINT` and the public hub."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def fetch(self, name: str, folder: Path, report: Report) -> None:
        """See `Source.fetch`."""
        endpoint = (self._endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        token = os.environ.get("HF_TOKEN")
        repository_name, _, selection = name.partition(":")
        if not NAME.match(repository_name):
            raise ModelNotFound(
                f"cannot read model name {name!r}: expected ORG/NAME or ORG/NAME:FILE-OR-QUANT"
            )
        repository = _describe(endpoint, repository_name, token)
        files = [
            _remote(endpoint, repository_name, repository.sha, sibling, token)
            for sibling in _select(repository, repository_name, selection)
        ]
        downloads = folder / DOWNLOADS
        downloads.mkdir(exist_ok=True)
        _fetch_all(files, downloads, name, report)
        for file in files:
            (folder / file.name).parent.mkdir(exist_ok=True)
            (downloads / file.name).replace(folder / file.name)
        remove_tree(downloads)


def _describe(endpoint: str, name: str, token: str | None) -> _Repository:
    url = f"{endpoint}/api/models/{name}?blobs=true"
    body, _ = read_document(url, what=f"model hf:{name}", token=token)
    try:
        return msgspec.json.decode(body, type=_Repository)
    except UNDECODABLE as ex:
        raise ModelLoadFailed(f"cannot read {url}: {ex}") from ex


def _select(repository: _Repository, name: str, selection: str) -> list[_Sibling]:
    """Return the files to fetch; of those in subfolders the poolings of encoders alone."""
    top = [sibling for sibling in repository.siblings if "/" not in sibling.rfilename]
    ggufs = [sibling for sibling in top if sibling.rfilename.endswith(".gguf")]
    if not selection:
        weights = [sibling for sibling in top if sibling.rfilename.endswith(".safetensors")]
        if weights:
            side = [file for file in top if any(fnmatch(file.rfilename, s) for s in SIDE_FILES)]
            configs = [file for file in repository.siblings if is_module_config(file.rfilename)]
            return [*side, *configs, *weights]
    wanted = [file for file in ggufs if _matches(file.rfilename, selection)]
    if len(wanted) != 1:
        available = ", ".join(file.rfilename for file in ggufs) or "no GGUF file"
        raise ModelNotFound(
            f"cannot choose a file of hf:{name}: {len(wanted)} fit {selection!r}, it has "
            f"{available}; name one as hf:{name}:FILE"
        )
    return wanted


def _matches(filename: str, selection: str) -> bool:
    """Whether a GGUF is the selected file, or of the selected quantisation such as `Q4_K_M`."""
    if not selection or filename == selection:
        return True
    quant = re.escape(selection.lower())
    return re.search(rf"(^|[-._]){quant}\.gguf$", filename.lower()) is not None


def _remote(
    endpoint: str, repository: str, revision: str, file: _Sibling, token: str | None
) -> RemoteFile:
    url = f"{endpoint}/{repository}/resolve/{revision}/{urllib.parse.quote(file.rfilename)}"
    sha256 = file.lfs.sha256 if file.lfs else None
    return RemoteFile(file.rfilename, url, file.size, sha256, token)


def _fetch_all(files: list[RemoteFile], downloads: Path, name: str, report: Report) -> None:
    sizes = [file.size_bytes for file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    missing = sum(file.size_bytes or 0 for file in files if not (downloads / file.name).exists())
    require_space(downloads, missing, what=f"hf:{name}")
    downloader = Downloader(downloads, lambda done: report(FetchProgress("fetching", done, total)))
    for file in files:
        downloader.fetch(file)
