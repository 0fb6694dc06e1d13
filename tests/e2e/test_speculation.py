"""Text that is copied, with speculation and without: the same, and with it in fewer steps."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.serve.texts import LICENSE, passage_twice
from cortex_core.neuron_api import Speculation
from tests.fakes.fleet_process import CONTEXT, FleetProcess
from tests.fakes.model_cache import SMOLLM2
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.model

WORDS = 60
"""Of the passage, which stands twice in the prompt: that and the answer fit into the context."""
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 1.2, "seed": 7},
}


@pytest.fixture
def reloaded(fleet: FleetProcess) -> Iterator[FleetProcess]:
    """The fleet, whose model comes back as it was."""
    yield fleet
    fleet.unload(SMOLLM2)
    fleet.load()


def reload(fleet: FleetProcess, speculation: Speculation) -> None:
    """Return when the node has loaded the model anew, with this in its profile."""
    fleet.unload(SMOLLM2)
    profile = {"context_tokens": CONTEXT, "speculation": speculation}
    answer = fleet.node.post("/models/load", json={"model_id": SMOLLM2, "profile": profile})
    assert answer.status_code == 200, answer.text
    assert answer.json()["already_loaded"] is False


def copies(fleet: FleetProcess) -> dict[str, str]:
    """Return how a passage goes on that stands twice before, greedy and sampled."""
    prompt, _ = passage_twice(LICENSE.read_text(encoding="utf-8").split()[1200 : 1200 + WORDS])
    answers = {
        name: fleet.openai.completions.create(
            model=SMOLLM2, prompt=prompt, max_tokens=48, extra_body={"ignore_eos": True}, **sampling
        )
        for name, sampling in SAMPLINGS.items()
    }
    assert {answer.usage and answer.usage.completion_tokens for answer in answers.values()} == {48}
    return {name: answer.choices[0].text for name, answer in answers.items()}


def accepted(fleet: FleetProcess) -> float:
    return fleet.node_metric("neuron_accepted_draft_tokens_total", model=SMOLLM2)


def test_speculation_saves_steps_and_changes_no_text(reloaded: FleetProcess) -> None:
    reload(reloaded, "off")
    plain = copies(reloaded)
    assert accepted(reloaded) == 0
    assert plain["greedy"] != plain["sampled"]

    reload(reloaded, "ngram")
    assert copies(reloaded) == plain
    wait_until(lambda: accepted(reloaded) > 0)
