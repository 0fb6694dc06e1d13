"""The test suite for schemas is found at whichever index has it."""

import hashlib
from pathlib import Path

import pytest

from cortex_core.errors import ModelNotFound
from tests.fakes import schema_suite

CONTENT = b"a package"


def index(folder: Path, *names: str) -> str:
    """Return the address of an index that offers these files of the project."""
    pages = folder / schema_suite.PROJECT
    pages.mkdir(parents=True)
    (pages / "index.html").write_text("".join(f'<a href="{name}">{name}</a>' for name in names))
    for name in names:
        (pages / name).write_bytes(CONTENT)
    return folder.as_uri()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(schema_suite, "SHA256", hashlib.sha256(CONTENT).hexdigest())


def test_every_index_is_asked_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = index(tmp_path / "others", "jsonschema-1.0.tar.gz")
    whole = index(tmp_path / "whole", schema_suite.ARCHIVE)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "absent").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{others} {whole}")
    assert schema_suite.suite_archive().read_bytes() == CONTENT


def test_a_suite_that_no_index_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = index(tmp_path / "others", "jsonschema-1.0.tar.gz")
    monkeypatch.setenv("PIP_INDEX_URL", others)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "absent").as_uri())
    with pytest.raises(
        ModelNotFound, match=rf"cannot find {schema_suite.ARCHIVE}: {others} "
    ) as no:
        schema_suite.suite_archive()
    assert "absent" in no.value.message
