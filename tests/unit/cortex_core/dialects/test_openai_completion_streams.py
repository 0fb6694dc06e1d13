"""Completions: echoed prompts, log probabilities and where tokens begin, read by the openai SDK."""

from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    Completed,
    Finished,
    PromptScored,
    TextDelta,
    TokenLogprob,
    ToolCallStarted,
    Usage,
)
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.errors import ProtocolError
from tests.unit.cortex_core.dialects.event_streams import started
from tests.unit.cortex_core.dialects.sdk_clients import (
    decode,
    frames,
    openai_client,
    recorder,
    streamed,
    whole,
)

COMPLETIONS = OpenAICompletions()


def test_an_echo_goes_before_each_choice_of_its_prompt() -> None:
    events: list[Any] = [started(), *(TextDelta(index, str(index)) for index in range(4))]
    events += [*(Finished(index, "stop") for index in range(4)), Completed(Usage(4, 4))]
    fields = {"prompt": ["a\u2028", "b"], "n": 2, "echo": True}
    expected = ["a\u20280", "a\u20281", "b2", "b3"]
    body = whole(COMPLETIONS, decode(COMPLETIONS, **fields), events)
    answer = openai_client(recorder(body)).completions.create(model="m", prompt="hi")
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [""] * 4
    for _, data in frames(streamed(COMPLETIONS, decode(COMPLETIONS, **fields), events)):
        for choice in data["choices"] if isinstance(data, dict) else ():
            texts[choice["index"]] += choice["text"]
    assert texts == expected


def test_a_prompt_is_echoed_with_its_scores() -> None:
    """As evaluation harnesses read it: the first token has none."""
    scores = (
        TokenLogprob(1, "<s>", 0.0),
        TokenLogprob(2, "Hi", -1.5, (TokenLogprob(3, "Ho", -0.5),)),
        TokenLogprob(4, " you", -2.5, (TokenLogprob(4, " you", -2.5),)),
    )
    events: list[Any] = [
        started(),
        PromptScored(0, scores[:1], "<s>Hi you"),
        PromptScored(0, scores[1:]),
        TextDelta(0, "!", logprobs=(TokenLogprob(5, "!", -0.25, (TokenLogprob(5, "!", -0.25),)),)),
        TextDelta(1, "?", logprobs=(TokenLogprob(6, "?", -0.75, (TokenLogprob(5, "!", -0.25),)),)),
        Finished(0, "length"),
        Finished(1, "length"),
        Completed(Usage(3, 2)),
    ]
    tops = [None, {"Ho": -0.5}, {" you": -2.5}, {"!": -0.25}]
    for prompt, text, offsets in (
        ("Hi you", "Hi you", [0, 0, 2, 6]),
        ([1, 2, 4], "<s>Hi you", [0, 3, 5, 9]),
    ):
        fields: dict[str, Any] = {"prompt": prompt, "n": 2, "echo": True, "logprobs": 1}
        asked = decode(COMPLETIONS, **fields)
        assert asked.request.sampling.scores_prompt
        body = whole(COMPLETIONS, asked, events)
        # The SDK types scores as if none could be null, which the first is even from OpenAI.
        client = openai_client(recorder(body), strict=False)
        answer = client.completions.create(model="m", prompt="hi")
        for choice, last, chance in zip(answer.choices, "!?", (-0.25, -0.75), strict=True):
            assert choice.text == text + last
            told: Any = choice.logprobs
            assert told.tokens == ["<s>", "Hi", " you", last]
            assert told.token_logprobs == [None, -1.5, -2.5, chance]
            assert told.top_logprobs == tops
            assert told.text_offset == offsets
        seen: dict[int, list[Any]] = {0: [], 1: []}
        for _, data in frames(streamed(COMPLETIONS, decode(COMPLETIONS, **fields), events)):
            for each in data["choices"] if isinstance(data, dict) else ():
                seen[each["index"]].append(each)
        for index, chunks in seen.items():
            assert "".join(each["text"] for each in chunks) == text + "!?"[index]
            told = [each["logprobs"] for each in chunks if each["logprobs"]]
            assert [score for each in told for score in each["token_logprobs"]][:3] == [
                None,
                -1.5,
                -2.5,
            ]
            assert [place for each in told for place in each["text_offset"]] == offsets


def pieces_of(text: str, cuts: list[int]) -> tuple[TokenLogprob, ...]:
    """Return tokens that are `text` in UTF-8, cut at these bytes."""
    data = text.encode()
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    tokens = []
    for start, stop in pairwise(places):
        raw = data[start:stop]
        told = raw.decode("utf-8", "replace")
        tokens.append(TokenLogprob(start, told, -1.0, (), raw if "\ufffd" in told else None))
    return tuple(tokens)


@given(
    texts=st.tuples(
        st.text(alphabet="aé好😀\ufffd", min_size=1), st.text(alphabet="bé好😀", min_size=1)
    ),
    cuts=st.lists(st.integers(0, 200)),
    scored=st.booleans(),
)
def test_a_token_that_goes_on_with_a_character_begins_where_that_does(texts, cuts, scored) -> None:
    prompt, said = texts
    told = pieces_of(said, cuts)
    events: list[Any] = [started(), Finished(0, "length"), Completed(Usage(3, 2))]
    events[1:1] = [TextDelta(0, each.text, logprobs=(each,)) for each in told]
    fields: dict[str, Any] = {"logprobs": 1}
    scores: tuple[TokenLogprob, ...] = ()
    if scored:
        scores = pieces_of(prompt, cuts)
        events.insert(1, PromptScored(0, scores))
        fields.update(prompt=prompt, echo=True)
    everything = (prompt if scored else "") + said
    starts = list(accumulate([len(each.encode()) for each in everything], initial=0))
    lengths = [len(each.spelled) for each in (*scores, *told)]
    places = list(accumulate(lengths, initial=0))[:-1]
    expected = [bisect_right(starts, place) - 1 for place in places]
    body = msgspec.json.decode(whole(COMPLETIONS, decode(COMPLETIONS, **fields), events))
    assert body["choices"][0]["logprobs"]["text_offset"] == expected
    streamed_places: list[int] = []
    for _, data in frames(streamed(COMPLETIONS, decode(COMPLETIONS, **fields), events)):
        for choice in data["choices"] if isinstance(data, dict) else ():
            streamed_places += (choice["logprobs"] or {"text_offset": []})["text_offset"]
    assert streamed_places == expected


def test_completions_know_no_tools() -> None:
    call = ToolCallStarted(0, 0, "id", "name")
    with pytest.raises(ProtocolError, match="completions have no tools"):
        streamed(COMPLETIONS, decode(COMPLETIONS, stream=True), [started(), call])
    rest = [Finished(0, "stop"), Completed(Usage(1, 1))]
    with pytest.raises(ProtocolError, match="completions have no tools"):
        whole(COMPLETIONS, decode(COMPLETIONS), [started(), call, *rest])
