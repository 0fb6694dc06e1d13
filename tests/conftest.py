"""Fixtures that every level of tests shares."""

import os
import signal
import tempfile

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.ports import free_ports

SHORT_TMP = "/tmp"


def pytest_configure() -> None:
    """Take out of the tests what depends on how, and where, they are run."""
    # A shell lets its background jobs, and so their children, ignore SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The path of a Unix socket has 107 bytes at most, and tests' folders are named after them.
    if len(tempfile.gettempdir()) > len(SHORT_TMP) and os.access(SHORT_TMP, os.W_OK):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", SHORT_TMP)
    # A proxy to the package index is none to the tests' own servers.
    for name in ("no_proxy", "NO_PROXY"):
        others = [os.environ[name]] if os.environ.get(name) else []
        os.environ[name] = ",".join(("127.0.0.1", "localhost", *others))
    # Whether an example is right does not hang on what else the machine does. The same are drawn in
    # each run: who looks for others says so.
    calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("cortex", calm, derandomize=True)
    settings.register_profile("explore", calm)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "cortex"))


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    (port,) = free_ports(1)
    return port
