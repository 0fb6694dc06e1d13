"""Clients written in Python, in an environment of their own: agent loop, proxy library, command."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_models import call
from tests.fakes.up_process import ScriptedUp, scripted_up

pytestmark = pytest.mark.timeout(900)  # its client is installed first

RUN_TIMEOUT_S = 120
SAID = "It is 18 degrees in Paris."
TEXT = "Hello from the script."
AGENT = """
import asyncio, sys
import agents
from agents import Agent, Runner, function_tool
from openai import AsyncOpenAI

@function_tool
def get_weather(city: str) -> str:
    "Tell the weather."
    print("called with", city)
    return "18 degrees"

async def main(url: str, model: str, api: str) -> None:
    agents.set_tracing_disabled(True)
    # A name with a slash in it would be taken for that of another provider's model.
    speaks = getattr(agents, f"OpenAI{api}Model")
    client = AsyncOpenAI(base_url=url + "/v1", api_key="none")
    chat = speaks(model=model, openai_client=client)
    agent = Agent(name="a", instructions="Be brief.", model=chat, tools=[get_weather])
    print((await Runner.run(agent, "How is the weather?")).final_output)
    streamed = Runner.run_streamed(agent, "How is the weather?")
    async for _ in streamed.stream_events():
        pass
    print(streamed.final_output)

asyncio.run(main(*sys.argv[1:]))
"""
LITELLM_BASES = """
import json, sys
import litellm

litellm.suppress_debug_info = True  # goes to stdout
url, model = sys.argv[1:]
bases = (("openai", url + "/v1"), ("anthropic", url))
"""
LITELLM_TEXT = """
messages = [{"role": "user", "content": "Hello?"}]
for kind, base in bases:
    asked = dict(model=f"{kind}/{model}", api_base=base, api_key="none", messages=messages)
    print(litellm.completion(**asked).choices[0].message.content)
    chunks = litellm.completion(**asked, stream=True)
    print("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
"""
LITELLM_TOOL = """
parameters = dict(type="object", properties=dict(city=dict(type="string")))
function = dict(name="get_weather", description="Tell the weather.", parameters=parameters)
for kind, base in bases:
    asked = dict(model=f"{kind}/{model}", api_base=base, api_key="none", stream=True)
    asked["tools"] = [dict(type="function", function=function)]
    turns = [dict(role="user", content="How is the weather?")]
    # Of a call that has to come, arguments are told while they are written.
    chunks = list(litellm.completion(**asked, messages=turns, tool_choice="required"))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert len([one for one in deltas if one.function.arguments]) > 1, "in pieces"
    first = litellm.stream_chunk_builder(chunks, messages=turns).choices[0]
    (call,) = first.message.tool_calls
    print(first.finish_reason, call.function.name, json.loads(call.function.arguments)["city"])
    result = dict(role="tool", tool_call_id=call.id, content="18 degrees")
    chunks = litellm.completion(**asked, messages=[*turns, first.message.model_dump(), result])
    print("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
"""
LLM_TOOL = """
def get_weather(city: str) -> str:
    "Tell the weather."
    return "18 degrees" if city == "Paris" else "unknown"
"""
WEATHER_RULES: list[dict[str, Any]] = [
    {"turn": 1, "contains": ["weather"], "answer": call("get_weather", city="Paris")},
    {"turn": 2, "latest_contains": ["18 degrees"], "answer": SAID},
    {"answer": TEXT},
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedUp]:
    with scripted_up(tmp_path_factory.mktemp("up"), *WEATHER_RULES) as ready:
        yield ready


def run(command: list[str], home: Path) -> list[str]:
    done = subprocess.run(
        command,
        env={
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "LLM_USER_PATH": str(home),
            # Else LiteLLM fetches prices of models from the network when it is imported.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("api", ["ChatCompletions", "Responses"])
def test_openai_agents_call_a_tool(
    api: str, python_clients: Path, up: ScriptedUp, tmp_path: Path
) -> None:
    command = [str(python_clients / "python"), "-c", AGENT, up.base_url, up.model, api]
    assert run(command, tmp_path) == ["called with Paris", SAID] * 2


def test_litellm_speaks_both_dialects(python_clients: Path, up: ScriptedUp, tmp_path: Path) -> None:
    command = [
        str(python_clients / "python"),
        "-c",
        LITELLM_BASES + LITELLM_TEXT,
        up.base_url,
        up.model,
    ]
    assert run(command, tmp_path) == [TEXT] * 4


def test_litellm_takes_a_call_and_answers_it(
    python_clients: Path, up: ScriptedUp, tmp_path: Path
) -> None:
    command = [
        str(python_clients / "python"),
        "-c",
        LITELLM_BASES + LITELLM_TOOL,
        up.base_url,
        up.model,
    ]
    assert run(command, tmp_path) == ["tool_calls get_weather Paris", SAID] * 2


def test_llm_answers_from_the_command_line(
    python_clients: Path, up: ScriptedUp, tmp_path: Path
) -> None:
    entry = {"model_id": "cortex", "model_name": up.model, "api_base": f"{up.base_url}/v1"}
    # YAML takes JSON.
    settings = json.dumps([entry | {"supports_tools": True}])
    (tmp_path / "extra-openai-models.yaml").write_text(settings)
    llm = [str(python_clients / "llm"), "-m", "cortex", "--key", "none"]
    weather = ["--functions", LLM_TOOL, "How is the weather?"]
    for more in ([], ["--no-stream"]):
        assert run([*llm, *more, "Hello?"], tmp_path) == [TEXT]
        assert run([*llm, *more, *weather], tmp_path) == [SAID]
