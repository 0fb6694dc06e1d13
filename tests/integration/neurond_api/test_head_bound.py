"""A request's head and trailers have a bound."""

import contextlib
import socket

import httpx
import pytest

from tests.fakes.neuron_process import NeuronProcess
from tests.fakes.waiting import WAIT_S

HEAD = b"POST /generate HTTP/1.1\r\nhost: h\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
MANY = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 100) for number in range(5000))


def answer_to(node: NeuronProcess, content: bytes) -> bytes:
    """Return what comes back until the node closes; it need not read all of `content`."""
    url = httpx.URL(node.base_url)
    with socket.create_connection((url.host, url.port or 0), timeout=WAIT_S) as client:
        answer = b""
        # A node that has refused reads no more, which may end the sending before its answer.
        with contextlib.suppress(ConnectionError):
            client.sendall(content)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize("rest", [b"x: " + b"y" * 100_000, b"x" * 100_000])
def test_a_head_without_end_is_refused(node: NeuronProcess, rest: bytes) -> None:
    answer = answer_to(node, HEAD + rest)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"request_too_large"' in answer


@pytest.mark.parametrize("start", [HEAD, CHUNKED])
def test_what_has_no_end_is_not_kept(node: NeuronProcess, start: bytes) -> None:
    answer = answer_to(node, start + MANY * 4)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert node.client.get("/health").status_code == 200


def test_a_large_head_and_a_body_in_small_pieces_are_read(node: NeuronProcess) -> None:
    headers = {f"x-{number}": "y" * 1000 for number in range(50)}
    assert node.client.get("/health", headers=headers).status_code == 200
    chunks = iter([b"["] + [b" "] * 20_000 + [b"]"])
    assert node.client.post("/generate", content=chunks).status_code == 400
