"""What the gateway adds to a request: gunicorn and fleet actor over a node that answers at once.

The same request goes to the node directly and through the gateway; the difference is the gateway's.
"""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cortex_core.canonical import GenerateRequest, TextPrompt
from cortex_core.ids import ModelId, RequestId
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.serve_process import MODEL, ServeProcess
from tests.fakes.waiting import wait_until

START_TIMEOUT_S = 30.0
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNeuron]:
    """A node with the model loaded, on a loop of its own in this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    neuron = FakeNeuron({MODEL: 100})
    neuron.put(MODEL)
    asyncio.run_coroutine_threadsafe(neuron.__aenter__(), loop).result(START_TIMEOUT_S)
    yield neuron
    asyncio.run_coroutine_threadsafe(neuron.__aexit__(None, None, None), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def gateway(node: FakeNeuron, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A gateway that knows the node and its model."""
    process = ServeProcess(tmp_path_factory.mktemp("gateway"), node.endpoint)
    wait_until(lambda: _answers(process.port), timeout_s=START_TIMEOUT_S)
    yield process
    process.close()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        return post(connection, "/v1/chat/completions", chat(stream=False))[0] == 200
    except OSError:
        return False
    finally:
        connection.close()


def chat(*, stream: bool) -> bytes:
    """Return a short chat request."""
    turns = [{"role": "user", "content": "Say one word."}]
    return json.dumps({"model": MODEL, "messages": turns, "stream": stream}).encode()


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    """Send one request on a kept connection and read the whole answer."""
    connection.request("POST", path, body, JSON)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_node_directly(benchmark: BenchmarkFixture, node: FakeNeuron) -> None:
    """The floor: the node's own answer to the canonical request."""
    request = GenerateRequest(RequestId("bench"), ModelId(MODEL), TextPrompt("Say one word."))
    body = msgspec.json.encode(request)
    connection = http.client.HTTPConnection(node.endpoint.removeprefix("http://"), timeout=5)
    status, answer = benchmark(post, connection, "/generate", body)
    connection.close()
    assert status == 200
    assert b"completed" in answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_through_the_gateway(
    benchmark: BenchmarkFixture, gateway: ServeProcess, stream: bool
) -> None:
    """One request after another, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    status, _ = benchmark(post, connection, "/v1/chat/completions", chat(stream=stream))
    connection.close()
    assert status == 200


def test_models_list(benchmark: BenchmarkFixture, gateway: ServeProcess) -> None:
    """What a client asks first."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)

    def get() -> int:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert benchmark(get) == 200
    connection.close()
