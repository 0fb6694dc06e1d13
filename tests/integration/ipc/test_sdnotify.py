"""systemd is told what it expects, and a manager that is not there harms nothing."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_core.ipc.sdnotify import Notifier
from tests.fakes.waiting import WAIT_S


def listen(address: str) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(address)
    manager.settimeout(WAIT_S)
    return manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    with listen(path) as manager:
        yield manager, path


def test_messages_are_as_systemd_reads_them(manager: tuple[socket.socket, str]) -> None:
    server, path = manager
    notifier = Notifier.from_env({"NOTIFY_SOCKET": path})
    notifier.ready()
    notifier.status("3 models\nready")
    notifier.watchdog()
    notifier.stopping()
    assert [server.recv(1000).decode() for _ in range(4)] == [
        "READY=1",
        "STATUS=3 models ready",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_abstract_addresses_are_understood() -> None:
    name = f"cortex-test-{os.getpid()}"
    with listen("\0" + name) as server:
        Notifier.from_env({"NOTIFY_SOCKET": "@" + name}).ready()
        assert server.recv(1000) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_socket_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.from_env(environ)
    notifier.ready()
    assert notifier.watchdog_interval_s is None


def test_manager_that_is_gone_is_logged_once(tmp_path: Path, caplog) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.ready()
    notifier.watchdog()
    assert [record.getMessage() for record in caplog.records] == ["cannot notify systemd"]


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval_is_half_of_what_is_allowed(
    variables: dict[str, str], interval_s: float | None
) -> None:
    notifier = Notifier.from_env({"NOTIFY_SOCKET": "/run/notify", **variables})
    assert notifier.watchdog_interval_s == interval_s
