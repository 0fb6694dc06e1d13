"""The fleets that end-to-end tests share. Everything here is real: commands, processes, models."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fleet_process import MODELS_TOML, FleetProcess, fleet_process
from tests.fakes.model_cache import SMOLLM2, cached_model

DAMAGED = ("corrupt", "truncated", "headless")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """A fleet with SmolLM2 ready, for tests that leave it as it was."""
    root = tmp_path_factory.mktemp("fleet")
    make_damaged(root)
    damaged = "".join(f'\n[[models]]\nid = "file:{root / name}.gguf"\n' for name in DAMAGED)
    aliases = "".join(f'"{name}" = "file:{root / name}.gguf"\n' for name in DAMAGED)
    models, _, named = MODELS_TOML.partition("[aliases]")
    toml = f"{models}{damaged}\n[aliases]{named}{aliases}"
    with fleet_process(root, models_toml=toml) as started:
        yield started
        started.stop()


def make_damaged(root: Path) -> None:
    """Write a GGUF file with a wrong header, one that ends in its tensors, and one that is none."""
    (good,) = cached_model(SMOLLM2).glob("*.gguf")
    with good.open("rb") as file:
        begin = file.read(4_000_000)
    (root / "corrupt.gguf").write_bytes(begin[:32] + bytes(1_000_000) + begin[1_000_032:])
    (root / "truncated.gguf").write_bytes(begin)
    (root / "headless.gguf").write_bytes(b"no model at all" * 1000)
