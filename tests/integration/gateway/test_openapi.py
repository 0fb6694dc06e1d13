"""What schemathesis makes of `/openapi.json`, sent to a real `cortex serve` over a fake neuron."""

from collections import Counter
from collections.abc import Iterator

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
POSTS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
]


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


def ask(
    operation: APIOperation, mode: GenerationMode, session: requests.Session, examples: int
) -> Counter[int]:
    """Send what schemathesis makes of an operation; return how often each status came."""
    statuses: Counter[int] = Counter()

    @settings(repeatable, max_examples=examples)
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body["model"] = "small"
        statuses[case.call_and_validate(session=session, checks=CHECKS).status_code] += 1

    send()
    return statuses


def test_what_is_asked_as_described_is_answered_as_described(
    api: BaseSchema, session: requests.Session
) -> None:
    good = Counter(
        operation.method
        for operation in (found.ok() for found in api.get_all_operations())
        if ask(operation, GenerationMode.POSITIVE, session, 25)[200]
    )
    assert good["get"] >= 3
    assert good["post"] >= 3


def test_what_is_asked_otherwise_is_refused_as_described(
    api: BaseSchema, session: requests.Session
) -> None:
    for path in POSTS:
        statuses = ask(api[path]["POST"], GenerationMode.NEGATIVE, session, 15)
        assert statuses[400]
        assert set(statuses) <= {200, 400, 404}
