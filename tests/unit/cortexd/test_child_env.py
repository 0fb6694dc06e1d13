"""What the parent hands over is what a child reads."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ConfigError
from cortexd.child_env import ChildEnvironment

HANDED = ChildEnvironment(
    config=Path("/etc/cortex/cortex.toml"),
    runtime_dir=Path("/run/cortex"),
    metrics_dir=Path("/run/cortex/metrics"),
    snapshot_fd=3,
    in_flight_fd=4,
    liveness_fd=7,
    death_fd=5,
    parent_pid=99,
    listen_fd=6,
    started_at=1_700_000_000,
)


@given(fd=st.integers(0, 1 << 20), folder=st.text("abc /é", min_size=1))
def test_children_read_what_was_written(fd: int, folder: str) -> None:
    handed = msgspec.structs.replace(HANDED, snapshot_fd=fd, runtime_dir=Path(folder))
    assert ChildEnvironment.from_environment(handed.to_environment({})) == handed


def test_children_do_not_speak_to_systemd() -> None:
    made = HANDED.to_environment({"NOTIFY_SOCKET": "/run/systemd/notify", "LANG": "C"})
    assert "NOTIFY_SOCKET" not in made
    assert made["LANG"] == "C"
    assert made["PROMETHEUS_MULTIPROC_DIR"] == "/run/cortex/metrics"


def test_started_by_hand_says_who_starts_it() -> None:
    with pytest.raises(ConfigError, match=r"CORTEXD_CONFIG is not set.*cortex serve"):
        ChildEnvironment.from_environment({})
