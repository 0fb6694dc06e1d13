"""A client that stops reading, on real processes; the model counts, to fill every buffer soon."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.fleet_process import FleetProcess
from tests.fakes.neuron_process import MODEL
from tests.fakes.raw_requests import sent
from tests.fakes.waiting import wait_until

CHOICES = 16
TOKENS = 1900
ANSWER_BYTES = 34_000_000
PAUSED_BELOW = CHOICES * TOKENS * 0.9


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    root = tmp_path_factory.mktemp("slow")
    fleet = FleetProcess(root, models_toml=f'[[models]]\nid = "{MODEL}"\n', counting=True)
    try:
        fleet.start()
        fleet.wait_ready()
        fleet.load(MODEL)
        yield fleet
        fleet.stop()
    finally:
        fleet.close()


@pytest.fixture(autouse=True)
def kept_by_the_kernel() -> None:
    """Skip where the two servers' sockets take so much of the answer that nothing is held."""
    kept = 2 * int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
    if kept > ANSWER_BYTES // 2:
        pytest.skip(f"net.ipv4.tcp_wmem lets the kernel keep {kept} bytes for slow clients")


def test_it_pauses_its_own_sequences_and_no_others(fleet: FleetProcess) -> None:
    request = httpx.Request(
        "POST",
        f"{fleet.base_url}/v1/chat/completions",
        json={
            "model": MODEL,
            "messages": [{"role": "user", "content": "q"}],
            "n": CHOICES,
            "logprobs": True,
            "top_logprobs": 20,
            "ignore_eos": True,
            "max_tokens": TOKENS,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    with sent(request, receive_buffer_bytes=4096) as connection:
        assert 0 < stands_still(lambda: tokens_made(fleet)) < PAUSED_BELOW
        assert fleet.model(MODEL).running == 1
        beside = fleet.openai.completions.create(model=MODEL, prompt="q", max_tokens=100)
        assert beside.usage is not None
        assert beside.usage.completion_tokens == 100
        assert tokens_made(fleet) < PAUSED_BELOW
        answer = read_to_end(connection)
    assert answer.count(b'"finish_reason":"length"') == CHOICES
    assert f'"completion_tokens":{CHOICES * TOKENS}'.encode() in answer
    fleet.wait_idle(MODEL)


def read_to_end(connection: socket.socket) -> bytes:
    """Return the whole chunked answer."""
    pieces = [b""]
    while not pieces[-1].endswith(b"0\r\n\r\n"):
        pieces.append(connection.recv(1 << 20))
        assert pieces[-1], "the server broke off"
    return b"".join(pieces)


def tokens_made(fleet: FleetProcess) -> float:
    """Tokens that the node has taken from the engine since it was started."""
    return fleet.node_metric("neuron_inter_token_latency_seconds_count")


def stands_still(value: Callable[[], float], *, times: int = 100) -> float:
    """Return the value once it was the same so many times, a hundredth of a second apart."""
    seen: list[float] = []

    def still() -> bool:
        now = value()
        if seen and seen[-1] != now:
            seen.clear()
        seen.append(now)
        return len(seen) > times and now > 0

    wait_until(still, timeout_s=60.0)
    return seen[-1]
