"""The `cortex` command against a running gateway, and without one."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.scripts import TEXT
from tests.fakes.serve_process import MODEL, ServeProcess, serving
from tests.fakes.waiting import WAIT_S


class Done:
    """A command that has ended."""

    def __init__(self, status: int | None, out: bytes, err: bytes) -> None:
        self.status = status
        self.out = out.decode()
        self.err = err.decode()


async def cortex(*arguments: str, stdin: str = "") -> Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cortexd.cli",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * WAIT_S):
        out, err = await process.communicate(stdin.encode())
    return Done(process.returncode, out, err)


@pytest.fixture
async def gateway(tmp_path: Path, neuron: FakeNeuron) -> AsyncIterator[ServeProcess]:
    async with serving(tmp_path, neuron) as process:
        yield process


async def test_day_of_an_operator(gateway: ServeProcess, neuron: FakeNeuron) -> None:
    config = ["--config", str(gateway.config)]
    shown = await cortex("status", *config)
    assert shown.status == 0, shown.err
    assert "node0" in shown.out
    assert "up" in shown.out
    loaded = await cortex("load", "small", *config)
    assert loaded.status == 0, loaded.err
    assert loaded.out.startswith(f"{MODEL} is ready on node0")
    assert neuron.loads == [MODEL]
    models = json.loads((await cortex("models", "--json", *config)).out)
    assert [model["loaded"] for model in models] == [True]
    assert models[0]["aliases"] == ["small"]
    assert MODEL in (await cortex("models", *config)).out
    status = json.loads((await cortex("status", "--json", *config)).out)
    assert status["replicas"][0]["status"] == "ready"
    socket = str(gateway.run_dir / "admin.sock")
    unloaded = await cortex("unload", "small", "--socket", socket)
    assert unloaded.out == f"node0/{MODEL} unloaded\n"
    assert neuron.unloads == [MODEL]
    again = await cortex("unload", "small", *config)
    assert again.status == 1
    assert "it is not loaded" in again.err
    unknown = await cortex("load", "nope", *config)
    assert unknown.status == 1
    assert "cannot find model" in unknown.err
    assert unknown.out == ""


async def test_a_node_is_drained_and_put_back(gateway: ServeProcess, neuron: FakeNeuron) -> None:
    config = ["--config", str(gateway.config)]
    drained = await cortex("drain", "node0", "--timeout", "5", *config)
    assert (drained.status, drained.out.partition(":")[0]) == (0, "node0 is drained"), drained.err
    assert "draining" in (await cortex("status", *config)).out
    refused = await cortex("load", "small", *config)
    assert "it is drained by an operator" in refused.err
    back = json.loads((await cortex("undrain", "node0", "--json", *config)).out)
    assert back["draining"] is False
    loaded = await cortex("load", "small", *config)
    assert loaded.status == 0, loaded.err
    assert neuron.loads == [MODEL]
    unknown = await cortex("drain", "nope", *config)
    assert (unknown.status, "cannot find node 'nope'" in unknown.err) == (1, True)


async def test_chat(gateway: ServeProcess, neuron: FakeNeuron) -> None:
    config = ["--config", str(gateway.config)]
    once = await cortex("chat", "How are you?", *config)
    assert once.status == 0, once.err
    assert once.out == f"{TEXT}\n"
    whole_answer = json.loads((await cortex("chat", "hi", "--json", *config)).out)
    assert whole_answer["text"] == TEXT
    assert whole_answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5}
    talk = ["--url", gateway.base_url, "--model", "small", "--system", "Be brief."]
    talked = await cortex("chat", *talk, stdin="hi\n\nand you?\n")
    assert talked.out == f"{TEXT}\n{TEXT}\n"
    last = neuron.generated[-1].prompt
    assert [turn.role for turn in last.messages] == ["system", "user", "assistant", "user"]
    unknown = await cortex("chat", "hi", "--model", "nope", *config)
    assert unknown.status == 1
    assert "cannot find model 'nope'" in unknown.err


async def test_without_a_gateway(tmp_path: Path, free_port: int) -> None:
    socket = tmp_path / "admin.sock"
    away = await cortex("status", "--socket", str(socket))
    assert away.status == 3
    assert "is the daemon running?" in away.err
    away = await cortex("chat", "hi", "--url", f"http://127.0.0.1:{free_port}")
    assert away.status == 3
    assert "cannot talk to the gateway" in away.err


async def test_check(tmp_path: Path, gateway: ServeProcess) -> None:
    good = await cortex("check", "--config", str(gateway.config))
    assert good.status == 0, good.err
    assert "right" in good.out
    report = json.loads((await cortex("check", "--json", "--config", str(gateway.config))).out)
    assert report["models"] == [MODEL]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[gateway]\nlisten = "0.0.0.0:31313"\nworker = 3\n')
    bad = await cortex("check", "--config", str(wrong))
    assert bad.status == 2
    assert f"{wrong}" in bad.err
    assert "gateway.worker" in bad.err
    assert "workers" in bad.err
    wrong.write_text('[gateway]\nlisten = "everywhere"\n')
    bad = await cortex("check", "--config", str(wrong))
    assert bad.status == 2
    assert "gateway.listen" in bad.err
    missing = await cortex("serve", "--config", str(tmp_path / "none.toml"))
    assert missing.status == 2
    assert "no such file" in missing.err


async def test_wrong_command_line() -> None:
    wrong = await cortex("fly")
    assert wrong.status == 2
    assert "fly" in wrong.err
    wrong = await cortex("up", "--gateway-port", "99999")
    assert wrong.status == 2
    assert "expected a whole number of 1 to 65535" in wrong.err
