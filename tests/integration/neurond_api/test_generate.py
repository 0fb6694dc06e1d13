"""The canonical stream and the OpenAI dialect, on a real daemon."""

import httpx
import openai
import pytest

from cortex_core.canonical import Completed, Finished, Started, TextDelta
from tests.fakes.neuron_process import CONTEXT, MODEL, NeuronProcess
from tests.fakes.raw_requests import sent
from tests.fakes.tokenizers_made import byte_level
from tests.fakes.waiting import wait_until
from tests.fakes.wire import events_of, refusal

TOKENIZER = byte_level()


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def body(text: str = "q", **sampling: object) -> dict[str, object]:
    prompt = {"type": "text", "text": text}
    return {"request_id": "r", "model": MODEL, "prompt": prompt, "sampling": sampling}


def in_flight(node: NeuronProcess) -> int:
    models = node.client.get("/models").json()["models"]
    return sum(m.get("running", 0) + m.get("waiting", 0) for m in models)


def test_generate_counts_on_from_the_prompt(node: NeuronProcess) -> None:
    answer = node.client.post("/generate", json=body("q", max_tokens=5))
    assert answer.headers["content-type"] == "application/x-ndjson"
    events = events_of(answer.content)
    assert isinstance(events[0], Started)
    assert events[0].prompt_tokens == 1
    tokens = [id_ for event in events if isinstance(event, TextDelta) for id_ in event.token_ids]
    (first,) = ids_of("q")
    assert tokens == list(range(first + 1, first + 6))
    assert isinstance(events[-2], Finished)
    assert events[-2].reason == "length"
    assert isinstance(events[-1], Completed)
    assert events[-1].usage.completion_tokens == 5


def test_a_stream_goes_on_where_it_was_cut(node: NeuronProcess) -> None:
    asked = body("q", max_tokens=8)
    uncut = events_of(node.client.post("/generate", json=asked).content)
    deltas = [event for event in uncut if isinstance(event, TextDelta | Finished)]
    seen = deltas[:3]
    outputs = [id_ for event in seen for id_ in event.token_ids]
    going_on = {"prompt_token_ids": ids_of("q"), "output_token_ids": outputs, "next_seq": 3}
    events = events_of(
        node.client.post("/generate", json=asked | {"continue_from": going_on}).content
    )
    assert seen + [e for e in events if isinstance(e, TextDelta | Finished)] == deltas
    assert events[-1] == uncut[-1]


def test_a_prompt_that_does_not_fit_is_refused_and_a_large_max_tokens_is_not(
    node: NeuronProcess,
) -> None:
    refused = node.client.post("/generate", json=body("z" * CONTEXT))
    message = f"prompt is too long: {CONTEXT} tokens > {CONTEXT - 1} maximum"
    assert refusal(refused, 400) == {
        "code": "context_length_exceeded",
        "message": message,
        "param": "prompt",
    }
    clamped = events_of(
        node.client.post(
            "/generate", json=body("z" * (CONTEXT - 4), max_tokens=32_000, ignore_eos=True)
        ).content
    )
    assert isinstance(clamped[-2], Finished)
    assert clamped[-2].reason == "length"
    assert isinstance(clamped[-1], Completed)
    assert clamped[-1].usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/generate", body("q", max_tokens=2000, ignore_eos=True, logprobs=20) | {"n": 16}),
        (
            "/v1/completions",
            {
                "model": MODEL,
                "prompt": "q",
                "max_tokens": 2000,
                "ignore_eos": True,
                "logprobs": 5,
                "n": 16,
                "stream": True,
            },
        ),
    ],
    ids=["canonical", "openai"],
)
def test_a_client_that_leaves_frees_its_place(
    node: NeuronProcess, path: str, asked: dict[str, object]
) -> None:
    before = metric(node, "cancelled")
    request = httpx.Request("POST", f"{node.base_url}{path}", json=asked)
    # Its answer is larger than what the kernel keeps for a client that does not read.
    with sent(request, receive_buffer_bytes=4096) as connection:
        assert connection.recv(1)
    wait_until(lambda: metric(node, "cancelled") == before + 1 and in_flight(node) == 0)
    assert in_flight(node) == 0


def metric(node: NeuronProcess, outcome: str) -> float:
    lines = node.client.get("/metrics").text.splitlines()
    start = f'neuron_requests_total{{model="{MODEL}",outcome="{outcome}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


def test_the_openai_sdk_streams_and_waits(node: NeuronProcess) -> None:
    with openai.OpenAI(base_url=f"{node.base_url}/v1", api_key="none") as client:
        messages = [{"role": "user", "content": "q"}]
        whole = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
        stream = client.chat.completions.create(
            model=MODEL,
            messages=messages,
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert whole.choices[0].finish_reason == "length"
        assert chunks[-1].usage == whole.usage
        (model,) = client.models.list()
        assert model.id == MODEL
        assert "completions" in model.model_dump()["capabilities"]
        completion = client.completions.create(model=MODEL, prompt="q", max_tokens=4)
        assert completion.choices[0].text == text


def test_several_prompts_are_answered_as_each_alone(node: NeuronProcess) -> None:
    asked = {"model": MODEL, "max_tokens": 4, "n": 2, "echo": True}
    prompts = ["0", "q", "4"]
    answer = node.client.post("/v1/completions", json=asked | {"prompt": prompts}).json()
    alone = [
        node.client.post("/v1/completions", json=asked | {"prompt": prompt}).json()
        for prompt in prompts
    ]
    texts = [choice["text"] for one in alone for choice in one["choices"]]
    assert [choice["text"] for choice in answer["choices"]] == texts
    assert texts[0].startswith("01")
    spent = [one["usage"]["total_tokens"] for one in alone]
    assert answer["usage"]["total_tokens"] == sum(spent)


def test_one_prompt_too_long_is_told_and_frees_the_others(node: NeuronProcess) -> None:
    asked = {"model": MODEL, "max_tokens": 2000, "ignore_eos": True}
    long = "q" * 2 * CONTEXT
    answer = node.client.post("/v1/completions", json=asked | {"prompt": ["0", long]})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    wait_until(lambda: in_flight(node) == 0)
    stream = asked | {"prompt": ["0", long], "stream": True}
    frames = node.client.post("/v1/completions", json=stream).text
    assert "context_length_exceeded" in frames
    assert "[DONE]" not in frames
    wait_until(lambda: in_flight(node) == 0)


def test_stop_strings_choices_and_logprobs_work_together(node: NeuronProcess) -> None:
    asked = {
        "model": MODEL,
        "prompt": "0",
        "max_tokens": 9,
        "stop": ["45"],
        "n": 2,
        "logprobs": 1,
    }
    answer = node.client.post("/v1/completions", json=asked).json()
    assert [choice["text"] for choice in answer["choices"]] == ["123", "123"]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"stop"}
    assert answer["choices"][0]["logprobs"]["tokens"][:3] == ["1", "2", "3"]


def formatted(kind: str, **fields: object) -> dict[str, object]:
    return body("q", max_tokens=9) | {"response_format": {"kind": kind, **fields}}


def test_an_answer_ends_when_its_format_is_complete(node: NeuronProcess) -> None:
    events = events_of(node.client.post("/generate", json=formatted("regex", text="3")).content)
    assert isinstance(events[-2], Finished)
    assert events[-2].reason == "stop"
    assert events[-1].usage.completion_tokens == 3


def test_a_stream_goes_on_within_its_format(node: NeuronProcess) -> None:
    asked = formatted("regex", text="3")
    uncut = events_of(node.client.post("/generate", json=asked).content)
    deltas = [event for event in uncut if isinstance(event, TextDelta | Finished)]
    outputs = [id_ for event in deltas for id_ in event.token_ids]
    for kept in (1, 3):
        going_on = {
            "prompt_token_ids": ids_of("q"),
            "output_token_ids": outputs[:kept],
            "next_seq": kept,
        }
        answer = node.client.post("/generate", json=asked | {"continue_from": going_on})
        events = events_of(answer.content)
        assert isinstance(events[0], Started)
        assert [e for e in events if isinstance(e, TextDelta | Finished)] == deltas[kept:]
        assert events[-1] == uncut[-1]


def test_a_format_that_cannot_be_kept_to_is_the_whole_answer(node: NeuronProcess) -> None:
    answer = node.client.post("/generate", json=formatted("regex", text="bad"))
    assert refusal(answer, 400)["param"] == "response_format"
    openai = node.client.post(
        "/v1/chat/completions",
        json={
            "model": MODEL,
            "messages": [{"role": "user", "content": "q"}],
            "response_format": {"type": "regex", "regex": "(a"},
        },
    )
    assert openai.status_code == 400
    assert openai.json()["error"]["type"] == "invalid_request_error"
    assert openai.json()["error"]["param"] == "response_format"
