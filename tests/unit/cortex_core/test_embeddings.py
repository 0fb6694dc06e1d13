"""Limits of embedding requests, what models can do, and the way from events to an answer."""

from collections.abc import AsyncIterator

import pytest

from cortex_core.canonical import (
    Completed,
    Failed,
    Ping,
    Usage,
)
from cortex_core.canonical_embedding import Embedded, EmbedEvent
from cortex_core.capabilities import require_ability
from cortex_core.embedding_answer import collect_embeddings
from cortex_core.embedding_limits import MAX_TOKENS, check_lengths
from cortex_core.errors import (
    ContextLengthExceeded,
    DeviceFailed,
    InvalidRequest,
    ProtocolError,
)
from cortex_core.ids import ModelId

MODEL = ModelId("pypi:m")
DONE = Completed(Usage(3, 0))


async def events(*given: EmbedEvent) -> AsyncIterator[EmbedEvent]:
    for event in given:
        yield event


async def test_vectors_are_put_in_the_order_of_the_inputs() -> None:
    said = (Ping(), Embedded(1, b"bbbb"), Embedded(0, b"aaaa"), DONE)
    answer = await collect_embeddings(events(*said), 2)
    assert answer.vectors == (b"aaaa", b"bbbb")
    assert answer.usage == Usage(3, 0)


@pytest.mark.parametrize(
    "said",
    [(), (Embedded(0, b"aaaa"),), (Embedded(0, b"aaaa"), DONE), (Embedded(5, b"aaaa"), DONE)],
    ids=["nothing", "no end", "one missing", "a strange one"],
)
async def test_an_answer_that_is_not_whole_is_none(said: tuple[EmbedEvent, ...]) -> None:
    with pytest.raises(ProtocolError, match="cannot read the vectors"):
        await collect_embeddings(events(*said), 2)


async def test_a_failure_is_raised_as_it_was_told() -> None:
    with pytest.raises(DeviceFailed, match="dead"):
        await collect_embeddings(events(Failed(DeviceFailed("dead").info())), 1)


def test_a_long_input_is_named_with_the_limit() -> None:
    check_lengths([256, 1], 256, param="input")
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\].*257 tokens > 256") as caught:
        check_lengths([256, 257], 256, param="input")
    assert caught.value.param == "input[1]"


def test_too_many_tokens_in_all_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=f"{MAX_TOKENS} is the most"):
        check_lengths([MAX_TOKENS // 2, MAX_TOKENS // 2 + 1], MAX_TOKENS, param="input")


def test_the_wrong_question_is_refused_and_the_unknown_model_is_not() -> None:
    require_ability(MODEL, ("embeddings",), "embeddings")
    require_ability(MODEL, (), "embeddings")
    with pytest.raises(InvalidRequest, match=r"cannot generate with pypi:m: it gives embeddings"):
        require_ability(MODEL, ("embeddings",), "completions")
    with pytest.raises(InvalidRequest, match=r"cannot embed with pypi:m"):
        require_ability(MODEL, ["completions", "chat"], "embeddings")
