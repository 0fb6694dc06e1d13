"""What schemathesis makes of `/openapi.json`, sent to a real `cortex serve` over a fake neuron."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.neuron_thread import NeuronThread
from tests.fakes.scripts import whole
from tests.fakes.serve_process import MODEL, ServeProcess
from tests.fakes.waiting import wait_until

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
POSTS = {
    "/v1/chat/completions": 10,
    "/v1/completions": 12,
    "/v1/embeddings": 20,
    "/v1/responses": 8,
    "/v1/messages": 4,
    "/v1/messages/count_tokens": 4,
}
"""Of so many requests as described, how many are answered well at least. No schema has all rules:
which blocks a role may send, that a named tool is one of the tools, that an item is kept."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    neuron = FakeNeuron({MODEL: 100})
    neuron.script = whole
    with NeuronThread(neuron):
        process = ServeProcess(tmp_path_factory.mktemp("serve"), neuron.endpoint)
        wait_until(lambda: answers(process))
        yield process
        process.close()


def answers(process: ServeProcess) -> bool:
    try:
        return httpx.get(f"{process.base_url}/v1/models/small").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def api(gateway: ServeProcess) -> BaseSchema:
    schema = schemathesis.openapi.from_url(f"{gateway.base_url}/openapi.json")
    schema.validate()
    return schema


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


repeatable = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def as_written(value: Any) -> Any:
    """Return whole numbers as clients write them: by its schema 3.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: as_written(member) for name, member in value.items()}
    return [as_written(each) for each in value] if isinstance(value, list) else value


def ask(
    operation: APIOperation, mode: GenerationMode, session: requests.Session, examples: int
) -> Counter[int]:
    """Send what schemathesis makes of an operation; return how often each status came."""
    statuses: Counter[int] = Counter()

    @settings(repeatable, max_examples=examples)
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = as_written({**case.body, "model": "small"})
        statuses[case.call_and_validate(session=session, checks=CHECKS).status_code] += 1

    send()
    return statuses


def test_what_is_asked_as_described_is_answered_as_described(
    api: BaseSchema, session: requests.Session
) -> None:
    good = {
        (operation.method, operation.path): ask(
            operation, GenerationMode.POSITIVE, session, EXAMPLES
        )[200]
        for operation in (found.ok() for found in api.get_all_operations())
    }
    assert sum(method == "get" and count > 0 for (method, _), count in good.items()) >= 3
    for path, least in POSTS.items():
        assert good["post", path] >= least, path


def test_what_is_asked_otherwise_is_refused_as_described(
    api: BaseSchema, session: requests.Session
) -> None:
    for path in POSTS:
        statuses = ask(api[path]["POST"], GenerationMode.NEGATIVE, session, 15)
        assert statuses[400]
        assert set(statuses) <= {200, 400, 404}
