"""What clients and operators get wrong, through the whole fleet, while a stream runs beside."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.fakes.fleet_process import CONTEXT, FleetProcess
from tests.fakes.model_cache import SMOLLM2
from tests.fakes.processes import run_command
from tests.fakes.sse_stream import SseStream

pytestmark = pytest.mark.model

CHAT = "/v1/chat/completions"
TEXTS = "/v1/completions"
MESSAGES = "/v1/messages"
USER: dict[str, Any] = {"role": "user", "content": "Hello"}
GOOD: dict[str, Any] = {"model": SMOLLM2, "messages": [USER], "max_tokens": 4}
STORY: dict[str, Any] = {
    "model": SMOLLM2,
    "messages": [{"role": "user", "content": "Tell a story about a fox."}],
    "temperature": 0,
    "max_tokens": 40,
}


class Beside:
    """Asks for the same story again and again, in a thread."""

    def __init__(self, fleet: FleetProcess) -> None:
        self._fleet = fleet
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.told: list[str] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._enough.is_set() or len(self.told) < 2:
                with SseStream(self._fleet.api, STORY) as stream:
                    self.told.append(stream.rest().text)
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            self.error = error


@pytest.fixture(scope="module", autouse=True)
def undisturbed(fleet: FleetProcess) -> Iterator[None]:
    """A stream runs all the time, and says the same at the end as at the beginning."""
    with Beside(fleet) as beside:
        yield
    assert beside.error is None
    assert len(beside.told) >= 2
    assert len(set(beside.told)) == 1
    fleet.wait_idle()


def openai_picture(url: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return GOOD | {"messages": [{"role": "user", "content": [part]}]}


def anthropic_picture() -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    part = {"type": "image", "source": source}
    return GOOD | {"messages": [{"role": "user", "content": [part]}]}


BAD_REQUESTS = {
    "malformed": (CHAT, b'{"model": ', 400, "cannot read request"),
    "malformed messages": (MESSAGES, b"{", 400, "cannot read request"),
    "wrong type": (CHAT, GOOD | {"messages": "Hello"}, 400, "messages"),
    "wrong type messages": (MESSAGES, GOOD | {"messages": {"role": "user"}}, 400, "messages"),
    "unknown model": (CHAT, GOOD | {"model": "pypi:llm-smolm2"}, 404, SMOLLM2),
    "unknown model messages": (MESSAGES, GOOD | {"model": "smal"}, 404, "small"),
    "negative limit": (CHAT, GOOD | {"max_tokens": -5}, 400, "max_tokens"),
    "negative limit messages": (MESSAGES, GOOD | {"max_tokens": -1}, 400, "max_tokens"),
    "no number": (TEXTS, {"model": SMOLLM2, "prompt": "x", "max_tokens": "9"}, 400, "max_tokens"),
    "no number messages": (MESSAGES, GOOD | {"max_tokens": "many"}, 400, "max_tokens"),
    "image": (CHAT, openai_picture("data:image/png;base64,aGk="), 422, "image"),
    "image messages": (MESSAGES, anthropic_picture(), 400, "image"),
    "token id": (TEXTS, {"model": SMOLLM2, "prompt": [1, 999_999]}, 400, "999999"),
    "negative token id": (TEXTS, {"model": SMOLLM2, "prompt": [-1]}, 400, "prompt"),
    "bias of no token": (CHAT, GOOD | {"logit_bias": {"999999": 1}}, 400, "999999"),
    "empty prompt": (TEXTS, {"model": SMOLLM2, "prompt": []}, 400, "prompt"),
}


@pytest.mark.parametrize(
    ("path", "body", "status", "word"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys()
)
def test_a_bad_request_is_explained_in_its_dialect(
    fleet: FleetProcess, path: str, body: bytes | dict[str, Any], status: int, word: str
) -> None:
    content: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = fleet.api.post(path, **content)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert word in f"{error['message']} {error.get('param')}"
    if path == MESSAGES:
        assert answer.json()["type"] == "error"
        expected = "not_found_error" if status == 404 else "invalid_request_error"
        assert error["type"] == expected
    else:
        assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_too_long_a_prompt_is_said_in_the_words_that_clients_know(
    fleet: FleetProcess, path: str, stream: bool
) -> None:
    long = {"role": "user", "content": "word " * 2 * CONTEXT}
    answer = fleet.api.post(path, json=GOOD | {"messages": [long], "stream": stream})
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    anthropics = f"prompt is too long: {{}} tokens > {CONTEXT - 1} maximum"
    openais = f"This model's maximum context length is {CONTEXT - 1} tokens. However, "
    tokens = int(message.partition("prompt is too long: ")[2].partition(" ")[0])
    assert anthropics.format(tokens) in message
    assert message.startswith(openais) == (path == CHAT)
    assert tokens > 2 * CONTEXT


@pytest.mark.parametrize("name", ["corrupt", "truncated", "headless"])
def test_a_model_file_that_is_damaged_is_named(fleet: FleetProcess, name: str) -> None:
    answer = fleet.api.post(CHAT, json=GOOD | {"model": name})
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert error["code"] == "model_load_failed"
    assert f"{name}.gguf" in error["message"]
    assert fleet.device().restarts == 0


def test_a_template_that_is_wrong_is_named(fleet: FleetProcess) -> None:
    answer = fleet.node.post(
        "/models/load",
        json={"model_id": SMOLLM2, "profile": {"chat_template": "{% for %}"}},
    )
    assert answer.status_code == 400
    assert "template" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("module", "text", "words"),
    [
        ("cortexd.cli", "[gateway]\nworkerz = 2\n", ["gateway.workerz", "workers"]),
        ("cortexd.cli", '[gateway]\nlisten = "nowhere"\n', ["gateway.listen", "nowhere"]),
        ("cortexd.cli", "[gateway\n", ["line 1"]),
        ("neurond.cli", "prot = 1\n", ["prot", "port"]),
        ("neurond.cli", 'port = "high"\n', ["port", "high"]),
        ("neurond.cli", 'devices = ["cuda-7"]\n', ["cuda-7"]),
    ],
)
def test_a_wrong_configuration_ends_the_daemon_with_2(
    tmp_path: Path, module: str, text: str, words: list[str]
) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text(text)
    for command in ("serve", "check"):
        done = run_command(tmp_path, module, command, "--config", str(config))
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        for word in words:
            assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(fleet: FleetProcess, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway, node = tmp_path / "cortex.toml", tmp_path / "neuron.toml"
        gateway.write_text(
            f'[gateway]\nlisten = "127.0.0.1:{port}"\nruntime_dir = "{tmp_path / "c"}"\n'
        )
        node.write_text(f'listen = "127.0.0.1"\nport = {port}\nstate_dir = "{tmp_path / "n"}"\n')
        for module, config in (("cortexd.cli", gateway), ("neurond.cli", node)):
            done = run_command(tmp_path, module, "serve", "--config", str(config))
            assert done.returncode != 0
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
            assert "Traceback" not in done.stderr
