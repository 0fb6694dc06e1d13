"""open-webui: its server finds the models and answers a chat as its page asks for it."""

import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.agents import CONTEXT_TOKENS
from tests.clients.install import pip_install
from tests.fakes.ports import free_ports
from tests.fakes.up_process import scripted_up
from tests.fakes.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(1800),  # it is installed first, and is large
    pytest.mark.skipif(
        sys.version_info >= (3, 13), reason="open-webui is for Python 3.11 and 3.12"
    ),
]

START_TIMEOUT_S = 180
ANSWER_TIMEOUT_S = 60
QUESTION, TEXT = "Name three rivers.", "The Rhine, the Elbe and the Danube. 🙂"
TITLE = "Three rivers"
RULES: list[dict[str, Any]] = [
    # After the answer it asks for a title, with the whole conversation in one message.
    {"contains": ["title", "### Chat History"], "answer": f'{{"title": "{TITLE}"}}'},
    {"turn": 1, "contains": [QUESTION], "answer": TEXT},
]


@contextlib.contextmanager
def open_webui(command: Path, folder: Path, base_url: str) -> Iterator[httpx.Client]:
    """Its server over this fleet, and a client of its API."""
    (port,) = free_ports(1)
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(command), "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(folder),
                "DATA_DIR": str(folder / "data"),
                "WEBUI_SECRET_KEY": "a-secret-of-thirty-two-bytes-or-so",
                "OPENAI_API_BASE_URL": f"{base_url}/v1",
                "OPENAI_API_KEY": "none",
                "ENABLE_OLLAMA_API": "False",
                # Else it fetches a model for embeddings and asks for its newest version.
                "OFFLINE_MODE": "True",
                "HF_HUB_OFFLINE": "1",
                "BYPASS_EMBEDDING_AND_RETRIEVAL": "True",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_TIMEOUT_S) as client:
            wait_until(lambda: is_up(client, server), timeout_s=START_TIMEOUT_S)
            yield client
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=10)


def is_up(client: httpx.Client, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "open-webui ended before it was up"
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").is_success
    return False


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


def test_a_chat_is_answered_and_named(tmp_path: Path) -> None:
    command = pip_install(tmp_path / "v", "open-webui") / "open-webui"
    with (
        scripted_up(tmp_path / "up", *RULES, context_tokens=CONTEXT_TOKENS) as up,
        open_webui(command, tmp_path / "webui", up.base_url) as client,
    ):
        log_in(client)
        models = [model["id"] for model in client.get("/api/models").json()["data"]]
        assert up.model in models
        assert streamed(client, up.model) == TEXT
        chat, answer_id = ask_as_the_page_does(client, up.model)
        wait_until(lambda: read(client, chat)["title"] == TITLE, timeout_s=ANSWER_TIMEOUT_S)
        message = read(client, chat)["chat"]["history"]["messages"][answer_id]
        assert (message["content"], message["done"]) == (TEXT, True)


def log_in(client: httpx.Client) -> None:
    """Become its first user."""
    user = {"name": "Someone", "email": "someone@example.com", "password": "a-pass-word-1"}
    token = post(client, "/api/v1/auths/signup", user)["token"]
    client.headers["Authorization"] = f"Bearer {token}"


def streamed(client: httpx.Client, model: str) -> str:
    """Ask its endpoint for other programs; return the text that came in pieces."""
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    body = client.post("/api/chat/completions", json=asked).text
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data:")]
    assert lines.pop() == "[DONE]"
    deltas = [c["delta"] for line in lines for c in json.loads(line)["choices"]]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    assert len(pieces) > 1
    return "".join(pieces)


def ask_as_the_page_does(client: httpx.Client, model: str) -> tuple[str, str]:
    """Begin a chat whose answer the server keeps; return the ids of the chat and the answer."""
    asked, answer = str(uuid.uuid4()), str(uuid.uuid4())
    messages = {
        asked: {"id": asked, "parentId": None, "childrenIds": [answer], "role": "user"}
        | {"content": QUESTION, "models": [model], "timestamp": int(time.time())},
        answer: {"id": answer, "parentId": asked, "childrenIds": [], "role": "assistant"}
        | {"content": "", "model": model, "timestamp": int(time.time())},
    }
    history = {"messages": messages, "currentId": answer}
    chat = {"title": "New", "models": [model], "messages": [*messages.values()], "history": history}
    chat_id = post(client, "/api/v1/chats/new", {"chat": chat})["id"]
    request = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
        "chat_id": chat_id,
        "id": answer,
        "session_id": "none",
        "background_tasks": {"title_generation": True},
    }
    post(client, "/api/chat/completions", request)
    return chat_id, answer


def read(client: httpx.Client, chat: str) -> Any:
    return client.get(f"/api/v1/chats/{chat}").json()
