"""The JSON-Schema-Test-Suite (github.com/json-schema-org/JSON-Schema-Test-Suite), as it lies in the
source package of `jsonschema`: fetched once per machine and kept beside the real models.

As a program this fetches it.
"""

import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.download import Downloader, RemoteFile
from neurond.sources.index import configured_indexes, project_files
from tests.fakes.model_cache import cache_dir

PROJECT: Final = "jsonschema"
ARCHIVE: Final = "jsonschema-4.26.0.tar.gz"
SHA256: Final = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"
TESTS: Final = "jsonschema-4.26.0/json/tests/"


@dataclass(frozen=True)
class Instance:
    """A value, and whether it is an instance of its case's schema."""

    description: str
    data: Any
    valid: bool


@dataclass(frozen=True)
class Case:
    """One schema of the suite."""

    file: str
    """Below the draft's folder."""
    description: str
    schema: Any
    instances: tuple[Instance, ...]


def suite_archive() -> Path:
    """Return the package with the suite, fetching it if it is not there.

    Raises:
        ModelNotFound: no index that pip would ask offers it.
    """
    folder = cache_dir() / "suites"
    kept = folder / ARCHIVE
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        remote = _offered()
        with tempfile.TemporaryDirectory(dir=folder) as name:  # others may be fetching it too
            Downloader(Path(name), lambda _: None).fetch(remote).rename(kept)
    return kept


def _offered() -> RemoteFile:
    """Return the package as the first index has it that does."""
    problems = []
    for index in configured_indexes():
        try:
            files = project_files(index, PROJECT)
        except (ModelNotFound, ModelLoadFailed) as ex:
            problems.append(ex.message)
            continue
        for file in files:
            if file.filename == ARCHIVE:
                return RemoteFile(ARCHIVE, file.url, file.size, SHA256)
        problems.append(f"{index} has others of {PROJECT}")
    raise ModelNotFound(f"cannot find {ARCHIVE}: {'; '.join(problems)}")


def suite_cases(draft: str) -> Iterator[Case]:
    """Yield what the suite has for a draft, such as `draft2020-12`, its optional parts too."""
    with tarfile.open(suite_archive()) as archive:
        for member in archive:
            _, found, file = member.name.partition(f"{TESTS}{draft}/")
            if not found or not file.endswith(".json"):
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            for case in json.load(stream):
                instances = tuple(
                    Instance(one["description"], one["data"], one["valid"]) for one in case["tests"]
                )
                yield Case(file, case["description"], case["schema"], instances)


if __name__ == "__main__":
    suite_archive()
