"""What a node holds of large bodies has a bound, and comes back on every path."""

from pathlib import Path

import pytest

from tests.fakes.large_bodies import HELD_MB, check_held_bodies
from tests.fakes.neuron_process import neuron_process


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
async def test_large_bodies_wait_for_each_other(tmp_path: Path, path: str) -> None:
    with neuron_process(tmp_path, toml=f"[limits]\nheld_bodies_mb = {HELD_MB}\n") as node:
        await check_held_bodies(node.port, path, status=400)
