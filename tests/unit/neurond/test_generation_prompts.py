"""What becomes of prompts: their tokens, scores and limits, and streams that are gone on with."""

import msgspec
import pytest

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    ContinueFrom,
    CountTokensRequest,
    Finished,
    GenerateRequest,
    Message,
    PromptScored,
    SamplingParams,
    Started,
    TextDelta,
    TextPart,
    TextPrompt,
    TokensPrompt,
    Usage,
)
from cortex_core.errors import ContextLengthExceeded, InvalidRequest
from cortex_core.ids import RequestId
from neurond.stream_items import Admitted, ChoiceFinished, PromptToken, Token
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.streams import TokenStream
from tests.fakes.generation_rig import (
    CONTEXT,
    END,
    MODEL,
    VOCABULARY,
    Rig,
    ids_of,
    request,
    says,
    text_of,
)
from tests.fakes.tokenizers_made import EOS


async def test_a_prompt_that_is_too_long_is_refused_in_the_words_clients_know() -> None:
    rig = Rig(says("x"))
    with pytest.raises(
        ContextLengthExceeded, match=r"^prompt is too long: 64 tokens > 63 maximum$"
    ) as caught:
        await rig.generation.start(request("z" * CONTEXT))
    assert caught.value.param == "prompt"
    assert rig.outcome("context_length_exceeded", "unknown") == 1
    chat = ChatPrompt((Message("user", (TextPart("z" * CONTEXT),)),))
    with pytest.raises(ContextLengthExceeded) as caught:
        await rig.generation.start(GenerateRequest(RequestId("r"), MODEL, chat))
    assert caught.value.param == "messages"


async def test_only_what_is_small_is_tokenised_on_the_loop() -> None:
    rig = Rig(says("x"))
    rig.pool.close()
    assert await rig.generation.count_tokens(MODEL, CountTokensRequest(TextPrompt("q"))) == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        await rig.generation.count_tokens(MODEL, CountTokensRequest(TextPrompt("q" * 10_000)))


@pytest.mark.parametrize("cut", range(8))
async def test_a_stream_cut_anywhere_goes_on_as_if_uncut(cut: int) -> None:
    rig = Rig(says("ab cd, stop"))
    asked = request("hello", stop=("never",))
    uncut = await rig.run(asked)
    deltas = [event for event in uncut if isinstance(event, TextDelta | Finished)]
    seen = deltas[: min(cut, len(deltas) - 1)]
    outputs = tuple(id_ for event in seen for id_ in event.token_ids)
    going_on = GenerateRequest(
        RequestId("r"),
        MODEL,
        TextPrompt("not rendered again"),
        asked.sampling,
        continue_from=ContinueFrom(tuple(ids_of("hello")), outputs, len(seen)),
    )
    events = await rig.run(going_on)
    rest = [event for event in events if isinstance(event, TextDelta | Finished)]
    assert seen + rest == deltas
    assert isinstance(events[-1], Completed)
    assert isinstance(uncut[-1], Completed)
    assert events[-1].usage == uncut[-1].usage


async def test_a_continuation_that_is_at_its_end_needs_no_engine() -> None:
    rig = Rig(says("x"))
    tokens = tuple(ids_of("qr"))
    going_on = GenerateRequest(
        RequestId("r"),
        MODEL,
        TextPrompt(""),
        SamplingParams(max_tokens=2),
        continue_from=ContinueFrom((1, 2), tokens, 2),
    )
    events = await rig.run(going_on)
    assert rig.engine.jobs == []
    assert [type(event) for event in events] == [Started, Finished, Completed]
    assert events[-1] == Completed(Usage(2, 2))


@pytest.mark.parametrize(
    ("going_on", "n", "param"),
    [
        (ContinueFrom((1,), (2,), 1), 2, "continue_from"),
        (ContinueFrom((), (2,), 1), 1, "continue_from.prompt_token_ids"),
        (ContinueFrom((1,), (2,), 9), 1, "continue_from.next_seq"),
        (ContinueFrom((1, VOCABULARY), (2,), 1), 1, "continue_from.prompt_token_ids"),
        (ContinueFrom((1,), (2, VOCABULARY), 1), 1, "continue_from.output_token_ids"),
        (ContinueFrom((-1,), (2,), 1), 1, "continue_from.prompt_token_ids"),
    ],
)
async def test_impossible_continuations_are_refused(
    going_on: ContinueFrom, n: int, param: str
) -> None:
    asked = GenerateRequest(RequestId("r"), MODEL, TextPrompt("x"), n=n, continue_from=going_on)
    rig = Rig(says("x"))
    with pytest.raises(InvalidRequest) as caught:
        await rig.generation.start(asked)
    assert caught.value.param == param
    assert rig.engine.jobs == []


async def test_prompt_token_ids_come_with_started_where_they_are_wanted() -> None:
    asked = GenerateRequest(RequestId("r"), MODEL, TokensPrompt((5, 6)), want_prompt_token_ids=True)
    started = (await Rig(says("x")).run(asked))[0]
    assert isinstance(started, Started)
    assert started.prompt_token_ids == (5, 6)


async def test_tokens_are_counted_without_an_engine() -> None:
    rig = Rig(says("x"))
    assert await rig.generation.count_tokens(MODEL, CountTokensRequest(TextPrompt("four"))) == 4
    many = CountTokensRequest(TextPrompt("q" * 5000))
    assert await rig.generation.count_tokens(MODEL, many) == 5000
    assert rig.engine.jobs == []


def talk(*texts: str, truncates: bool, max_tokens: int | None = None) -> GenerateRequest:
    turns = tuple(
        Message("assistant" if number % 2 else "user", (TextPart(text),))
        for number, text in enumerate(texts)
    )
    prompt = ChatPrompt(turns, truncates=truncates)
    return GenerateRequest(RequestId("r"), MODEL, prompt, SamplingParams(max_tokens=max_tokens))


@pytest.mark.parametrize(("max_tokens", "kept"), [(4, 3), (None, 1), (40, 1)])
async def test_a_conversation_is_cut_to_the_context_with_room_for_an_answer(
    max_tokens: int | None, kept: int
) -> None:
    rig = Rig(says("Yes"))
    rig.texts.template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    turns = ["a" * 20, "b" * 20, "c" * 20, "d" * 20, "e" * 20]
    events = await rig.run(talk(*turns, truncates=True, max_tokens=max_tokens))
    assert text_of(events) == "Yes"
    (job,) = rig.engine.jobs
    assert job.prompt_token_ids == ids_of("".join(turns[-kept:]))
    assert job.max_tokens == min(max_tokens or CONTEXT, CONTEXT - 20 * kept)


async def test_a_last_turn_is_taken_unless_it_fills_the_context() -> None:
    rig = Rig(says("Y", end=False))
    rig.texts.template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    await rig.run(talk("a" * 20, "b" * 20, "c" * 62, truncates=True))
    assert rig.engine.jobs[0].prompt_token_ids == ids_of("c" * 62)
    for texts, truncates in ((["a", "b", "c" * 80], True), (["a" * 40, "b", "c" * 40], False)):
        with pytest.raises(ContextLengthExceeded, match="tokens > 63"):
            await rig.run(talk(*texts, truncates=truncates))


async def test_what_is_continued_is_not_cut() -> None:
    rig = Rig(says("Yes"))
    rig.texts.template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    turns = ["a" * 40, "b", "c" * 40]
    going_on = ContinueFrom(tuple(ids_of("".join(turns))), tuple(ids_of("Y")), 2)
    asked = msgspec.structs.replace(talk(*turns, truncates=True), continue_from=going_on)
    with pytest.raises(ContextLengthExceeded, match="tokens > 63"):
        await rig.run(asked)
    assert rig.engine.jobs == []


async def test_no_tokens_can_be_asked_for() -> None:
    rig = Rig(says("Yes"))
    events = await rig.run(request("hi", n=2, max_tokens=0, logprobs=1))
    started, *ends, completed = events
    assert isinstance(started, Started)
    assert started.cached_tokens == 3
    assert ends == [Finished(0, "length"), Finished(1, "length", seq=1)]
    assert completed == Completed(Usage(len(ids_of("hi")), 0, cached_tokens=3))
    assert rig.engine.jobs[0].max_tokens == 1


async def test_a_prompts_scores_come_before_the_answer() -> None:
    ids = ids_of("hiya")

    def play(job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        for token_id in job.prompt_token_ids[1:]:
            stream.deliver(PromptToken(token_id, -1.5, ((token_id, -1.5),)))
        stream.deliver(Token(0, ids[0]))
        stream.deliver(ChoiceFinished(0, "length"))

    rig = Rig(play)
    asked = msgspec.structs.replace(
        request("hiya", max_tokens=0),
        sampling=SamplingParams(max_tokens=0, logprobs=1, scores_prompt=True),
    )
    started, *scored, end, completed = await rig.run(asked)
    assert isinstance(started, Started)
    assert isinstance(end, Finished)
    assert isinstance(completed, Completed)
    assert all(isinstance(event, PromptScored) for event in scored)
    scores = [score for event in scored for score in event.scores]  # type: ignore[union-attr]
    assert [score.token_id for score in scores] == ids
    assert "".join(score.text for score in scores) == "hiya"
    assert [score.logprob for score in scores] == [0.0, *[-1.5] * (len(ids) - 1)]
    assert scores[-1].top[0].token_id == ids[-1]
    assert not any(event.text for event in scored)  # type: ignore[union-attr]
    going_on = ContinueFrom(tuple(ids), (ids[0],), 1)
    again = msgspec.structs.replace(
        asked,
        sampling=SamplingParams(max_tokens=3, logprobs=1, scores_prompt=True),
        continue_from=going_on,
    )
    rig.engine.script = says("hYes")
    assert not any(isinstance(event, PromptScored) for event in await rig.run(again))
    assert not rig.engine.jobs[-1].sampling.scores_prompt


async def test_a_scored_prompt_of_ids_has_its_text_whole() -> None:
    ids = (END, *ids_of("a\N{GRINNING FACE}"))
    assert len(ids) > 3, "the face has several tokens"

    def play(job: EngineJob, stream: TokenStream) -> None:
        stream.deliver(Admitted(0))
        for token_id in job.prompt_token_ids[1:]:
            stream.deliver(PromptToken(token_id, -1.5))
        stream.deliver(Token(0, ids[1]))
        stream.deliver(ChoiceFinished(0, "length"))

    asked = msgspec.structs.replace(
        request("", max_tokens=0),
        prompt=TokensPrompt(ids),
        sampling=SamplingParams(max_tokens=0, logprobs=0, scores_prompt=True),
    )
    events = await Rig(play).run(asked)
    texts = [event.text for event in events if isinstance(event, PromptScored)]
    assert "".join(texts) == texts[0] == f"{EOS}a\N{GRINNING FACE}"
