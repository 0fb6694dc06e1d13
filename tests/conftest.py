"""Fixtures that every level of tests shares."""

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.ports import free_ports


def pytest_configure() -> None:
    """Take out of the tests what depends on how, and where, they are run."""
    # A shell lets its background jobs, and so their children, ignore SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whether an example is right does not hang on what else the machine does.
    settings.register_profile("cortex", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("cortex")


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    (port,) = free_ports(1)
    return port
