"""What a user may not look at counts as there, so that using it tells why it cannot be used."""

from pathlib import Path

import pytest

from cortex_core.ipc.socket_paths import may_exist


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    assert may_exist(tmp_path)
    assert not may_exist(tmp_path / "gone")


def test_what_lies_in_a_closed_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *, follow_symlinks: bool = True) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refused)
    assert may_exist(Path("/run/cortex/admin.sock"))
