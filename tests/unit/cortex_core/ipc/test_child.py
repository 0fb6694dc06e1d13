"""Child processes: how they are started, how often again, and how they ended."""

import subprocess
import sys
from pathlib import Path

import pytest

from cortex_core.ipc.child import BACKOFF_RESET_AFTER_S, ExitStatus, backoff, next_attempt


def test_backoff_doubles_up_to_its_bound() -> None:
    assert [round(backoff(attempt), 3) for attempt in range(9)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        6.4,
        10.0,
        10.0,
    ]
    assert backoff(10**9) == 10.0


def test_series_begins_anew_after_a_good_run() -> None:
    assert next_attempt(4, 0.5) == 5
    assert next_attempt(4, BACKOFF_RESET_AFTER_S) == 0


@pytest.mark.parametrize(
    ("returncode", "text", "signum"),
    [
        (0, "exited with status 0", None),
        (79, "exited with status 79", None),
        (-9, "killed by signal 9", 9),
    ],
)
def test_exit_status_says_how_it_ended(returncode: int, text: str, signum: int | None) -> None:
    status = ExitStatus(returncode)
    assert str(status) == text
    assert status.signal == signum


@pytest.mark.parametrize("options", [[], ["-P"], ["-s"], ["-P", "-s"]])
def test_a_child_looks_for_modules_where_its_parent_does(options: list[str]) -> None:
    show = "from cortex_core.ipc.child import python_command as c; print(*c('m', 'a b'), sep='|')"
    root = str(Path(__file__).parents[4])
    done = subprocess.run(
        [sys.executable, *options, "-c", f"import sys; sys.path.insert(0, {root!r}); {show}"],
        env={},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.strip().split("|") == [sys.executable, *options, "-m", "m", "a b"]
