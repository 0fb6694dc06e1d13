"""Bytes for a client come in time, whatever the events are."""

from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    Event,
    Finished,
    GenerateRequest,
    Ping,
    Started,
    TextDelta,
    TextPrompt,
)
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Decoded, Dialect
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.ids import ModelId, RequestId
from cortex_core.sse_stream import QUIET_S, sse_chunks

REQUEST = GenerateRequest(RequestId("r"), ModelId("fake:m"), TextPrompt("hi"))
STARTED = Started(RequestId("r"), REQUEST.model, 1)
WITHHELD = TextDelta(0, "", token_ids=(1,))
LONGEST_GAP_S = 0.5
"""Between two events, as nodes and the gateway's own clients keep it."""


class Paced:
    """Gives each event after its gap, on a clock of its own."""

    def __init__(self, events: list[tuple[Event, float]]) -> None:
        self.now = 0.0
        self._events = events

    def clock(self) -> float:
        return self.now

    async def stream(self) -> AsyncGenerator[Event, None]:
        for event, gap_s in self._events:
            self.now += gap_s
            yield event


async def times_of(dialect: Dialect, events: list[tuple[Event, float]]) -> list[float]:
    """Return when each chunk came."""
    paced = Paced(events)
    encoder = dialect.encoder(Decoded(request=REQUEST, model="m"), created=0)
    return [paced.now async for _ in sse_chunks(paced.stream(), encoder, clock=paced.clock)]


@given(
    dialect=st.sampled_from([OpenAIChat(), OpenAICompletions(), AnthropicMessages()]),
    withheld=st.lists(
        st.tuples(st.sampled_from([WITHHELD, Ping()]), st.floats(0.001, LONGEST_GAP_S)),
        max_size=30,
    ),
)
async def test_no_silence_of_a_second_while_text_is_withheld(
    dialect: Dialect, withheld: list[tuple[Event, float]]
) -> None:
    last = (Finished(0, "stop"), LONGEST_GAP_S)
    times = await times_of(dialect, [(STARTED, 0.0), *withheld, last])
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert max(gaps) < 1.0


async def test_no_sign_of_life_before_it_is_due() -> None:
    early = [(STARTED, 0.0), *[(WITHHELD, QUIET_S / 5)] * 4]
    assert await times_of(OpenAIChat(), early) == [0.0]
