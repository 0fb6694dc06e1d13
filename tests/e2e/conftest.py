"""The fleets that end-to-end tests share. Everything here is real: commands, processes, models."""

from collections.abc import Iterator

import pytest

from tests.fakes.fleet_process import FleetProcess, fleet_process


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """A fleet with SmolLM2 ready, for tests that leave it as it was."""
    with fleet_process(tmp_path_factory.mktemp("fleet")) as started:
        yield started
        started.stop()
