"""What the daemon does with models that another version of it has prepared."""

from pathlib import Path

import pytest

from cortex_core.errors import ModelLoadFailed
from cortex_core.ids import ModelId
from neurond.sources.fetch_messages import SourceSettings
from neurond.sources.library import Library
from neurond.sources.store import ModelStore
from neurond.supervisor.ports import ProgressCallback


class Outdated(ModelStore):
    """Holds two models of another version."""

    def outdated(self) -> list[ModelId]:
        return [ModelId("pypi:broken"), ModelId("pypi:old")]


class Preparing(Library):
    """Notes what it is to prepare, and fails at one model."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Outdated(folder), folder, SourceSettings())
        self.asked: list[str] = []

    async def ensure(self, model_id: ModelId, on_progress: ProgressCallback) -> Path:
        self.asked.append(model_id)
        if model_id == "pypi:broken":
            raise ModelLoadFailed("cannot read it")
        return self.folder(model_id)


async def test_all_are_prepared_again_and_what_fails_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    library = Preparing(tmp_path)
    await library.renew()
    assert library.asked == ["pypi:broken", "pypi:old"]
    assert [record.message for record in caplog.records] == [
        "model not prepared again",
        "model prepared again",
    ]
