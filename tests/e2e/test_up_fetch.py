"""`cortex up` fetches what is not there, and nothing else, before its node starts."""

from pathlib import Path

from cortex_core.ids import ModelId
from cortex_core.model_folder import MANIFEST, model_folder
from cortexd.up.folders import folders_of
from tests.fakes.scripted_models import write_script
from tests.fakes.up_process import FIRST_QUESTION, UpProcess


def said_of_the_fetch(state: Path, model: ModelId) -> str | None:
    """Answer one question; return what the process that fetches said of the model, if one ran."""
    up = UpProcess(state, "--once", "--model", model, "--ask", FIRST_QUESTION)
    try:
        assert up.wait_end() == 0, up.says()
        assert up.stdout.read_text() == "Yes.\n"
    finally:
        up.kill()
    assert up.sockets() == []
    lines = [line.removeprefix(f"{model} ") for line in up.says().splitlines()]
    return next((line for line in lines if line in ("fetched", "was there already")), None)


def test_only_a_model_that_is_not_complete_is_fetched(tmp_path: Path) -> None:
    state = tmp_path / "s"
    model = write_script(tmp_path / "script", {"contains": [FIRST_QUESTION], "answer": "Yes."})
    assert said_of_the_fetch(state, model) == "fetched"
    assert said_of_the_fetch(state, model) is None
    manifest = model_folder(folders_of(state).neuron_state, model) / MANIFEST
    manifest.write_text("{")
    assert said_of_the_fetch(state, model) == "fetched"
