"""Calls of a real model that knows of none, behind the real daemon: held from their marker on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest

from cortex_core.canonical import Finished, Started, TextDelta, ToolCallDelta, ToolCallStarted
from neurond.sources.store import ModelStore
from tests.fakes.model_cache import SMOLLM2, cache_dir, real_model
from tests.fakes.real_node import real_node
from tests.fakes.wire import events_of

pytestmark = pytest.mark.model

MARKERS = {"<file_sep>": "<tool_call>", "<filename>": "</tool_call>"}
"""Tokens that the model has no use for, and what they are here."""
MARKER = 5
"""The id of the first."""
TEMPLATE = (
    '{{ "<|im_start|>system\\nAnswer with <tool_call> to call one of: " '
    '+ (tools | tojson) + "<|im_end|>\\n" }}'
    '{% for message in messages %}{{ "<|im_start|>" + message.role + "\\n" + message.content '
    '+ "<|im_end|>\\n" }}{% endfor %}{{ "<|im_start|>assistant\\n" }}'
)
SCHEMAS = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
    },
    "read_file": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["path"],
    },
    "spoilt": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}},
}
TOOLS = [{"name": name, "parameters": schema} for name, schema in SCHEMAS.items()]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    real_model(SMOLLM2)
    root: Path = tmp_path_factory.mktemp("held")
    folder = ModelStore(root / "state").folder(SMOLLM2)
    shutil.copytree(ModelStore(cache_dir()).folder(SMOLLM2), folder)
    tokenizer = (folder / "tokenizer.json").read_text()
    for token, marker in MARKERS.items():
        tokenizer = tokenizer.replace(json.dumps(token), json.dumps(marker))
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with real_node(root) as connected:
        connected.post("/models/load", json={"model_id": SMOLLM2}).raise_for_status()
        yield connected


def generate(client: httpx.Client, question: str, **changes: object) -> list[object]:
    prompt = {
        "type": "chat",
        "messages": [{"role": "user", "content": [{"type": "text", "text": question}]}],
        "tools": TOOLS,
    }
    sampling = {"temperature": 0, "max_tokens": 120}
    body = {"request_id": "r", "model": SMOLLM2, "prompt": prompt, "sampling": sampling}
    answer = client.post("/generate", json=body | changes)
    assert answer.status_code == 200, answer.text
    return list(events_of(answer.content))


def calling(client: httpx.Client, question: str) -> list[object]:
    """Return the events of an answer that goes on behind a marker, which the model never says."""
    ids = prompt_ids(client, question)
    going_on = {"prompt_token_ids": ids, "output_token_ids": [MARKER], "next_seq": 1}
    return generate(client, question, continue_from=going_on)


@pytest.mark.parametrize("question", ["Is it warm in Rome?", "Read the file notes.txt", "Oslo?"])
def test_a_call_that_was_begun_is_one(client: httpx.Client, question: str) -> None:
    events = calling(client, question)
    names = [event.name for event in events if isinstance(event, ToolCallStarted)]
    deltas = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    [end] = [event for event in events if isinstance(event, Finished)]
    assert end.reason in ("tool_calls", "length")
    assert names
    if len(names) == 1 and end.reason == "tool_calls":
        jsonschema.validate(json.loads("".join(deltas)), SCHEMAS[names[0]])
    assert sum(bool(each) for each in deltas) > 3, "they come while they are written"


def test_an_answer_without_a_marker_is_the_models_own(client: httpx.Client) -> None:
    question = "What is the capital of France?"
    free = {"type": "tokens", "token_ids": prompt_ids(client, question)}
    texts = [
        "".join(event.text for event in events if isinstance(event, TextDelta))
        for events in (generate(client, question), generate(client, question, prompt=free))
    ]
    assert texts[0].strip() == texts[1].strip() != ""


def prompt_ids(client: httpx.Client, question: str) -> tuple[int, ...]:
    begun = generate(client, question, want_prompt_token_ids=True, sampling={"max_tokens": 1})
    ids = next(event for event in begun if isinstance(event, Started)).prompt_token_ids
    assert ids is not None
    return ids
