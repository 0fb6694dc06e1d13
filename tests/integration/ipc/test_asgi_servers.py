"""The servers we run on, as processes: a client that goes away ends its stream at once."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.waiting import WAIT_S, wait_until

HERE = Path(__file__).parent
SERVERS = {
    "uvicorn": ["uvicorn", "--log-level", "warning", "--port"],
    "gunicorn": [
        "gunicorn",
        "--worker-class",
        "asgi",
        "--no-control-socket",
        "--log-level",
        "warning",
        "--bind",
    ],
}


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, free_port: int, tmp_path: Path) -> Iterator[int]:
    name = request.param
    where = str(free_port) if name == "uvicorn" else f"127.0.0.1:{free_port}"
    process = subprocess.Popen(
        [sys.executable, "-m", *SERVERS[name], where, "asgi_app:app"],
        cwd=HERE,
        env={"ASGI_NOTES": str(tmp_path / "notes"), "PATH": "/usr/bin:/bin"},
    )
    try:
        wait_until(lambda: accepts(free_port))
        yield free_port
    finally:
        process.terminate()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(WAIT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def notes(tmp_path: Path) -> list[str]:
    path = tmp_path / "notes"
    return path.read_text().splitlines() if path.exists() else []


def request(port: int, text: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    client.sendall(text.encode())
    return client


def read_until(client: socket.socket, marker: bytes) -> bytes:
    received = b""
    while marker not in received:
        chunk = client.recv(4096)
        assert chunk, f"connection ended after {received!r}"
        received += chunk
    return received


def test_client_that_goes_away_ends_its_silent_stream(server: int, tmp_path: Path) -> None:
    head = "Host: x\r\nContent-Length: 5\r\n\r\nhello"
    clients = {
        "/post": request(server, f"POST /post HTTP/1.1\r\n{head}"),
        "/get": request(server, "GET /get HTTP/1.1\r\nHost: x\r\n\r\n"),
        "/chunked": request(
            server,
            "POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            "5\r\nhello\r\n0\r\n\r\n",
        ),
    }
    for path, client in clients.items():
        read_until(client, b"first\n")
        wait_until(lambda path=path: f"{path} silent" in notes(tmp_path))
        client.close()
        # Below the half minute of grace that a server may give before it cancels by itself.
        wait_until(lambda path=path: f"{path} ended" in notes(tmp_path), timeout_s=20.0)
    assert sorted(line for line in notes(tmp_path) if "closed" in line) == [
        "/chunked source closed",
        "/get source closed",
        "/post source closed",
    ]


def test_connection_is_used_again_after_an_answer(server: int) -> None:
    client = request(server, "")
    for size in (0, 3, 100_000):
        body = "x" * size
        head = f"POST /short HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        client.sendall((head + body).encode())
        answer = read_until(client, str(size).encode() + b"\r\n0\r\n\r\n")
        assert b"200" in answer.split(b"\r\n")[0]
        client.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in read_until(client, b"1\r\n0\r\n0\r\n\r\n").split(b"\r\n")[0]
    client.close()
