"""Embedding requests over an embedder that answers with what it was given."""

from array import array
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cortex_core.errors import CortexError, ErrorInfo, OutOfMemory, QueueFull
from cortex_core.ids import RequestId
from neurond.engine import embedding
from neurond.engine.embedding import STEP_TOKENS, EmbeddingEngine, EmbeddingRequest, EmbedInput
from neurond.engine.engine import StepOutput

BAD = 666
WRONG = ErrorInfo("internal_error", "not finite")


class Echo:
    """The vector of an input is its token ids; `steps` holds the lengths of each step."""

    dimensions = 1

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.error: CortexError | None = None

    def embed(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        self.steps.append([len(each.token_ids) for each in inputs])
        if self.error is not None:
            raise self.error
        return [WRONG if BAD in each.token_ids else each.token_ids.tobytes() for each in inputs]


def request(
    stream: int, *lengths: int, first: int | None = None, principal: str | None = None
) -> EmbeddingRequest:
    """Return a request whose token ids are its stream's number."""
    inputs = [array("i", [stream] * length) for length in lengths]
    if first is not None:
        inputs[0][0] = first
    return EmbeddingRequest(RequestId(f"r{stream}"), stream, inputs, principal=principal)


def run(engine: EmbeddingEngine) -> StepOutput:
    """Step until there is nothing to do; return all that was told, in order."""
    told = StepOutput()
    while engine.has_work():
        output = engine.step()
        for name in ("admitted", "vectors", "finished", "failed"):
            getattr(told, name).extend(getattr(output, name))
    return told


def test_every_input_gets_its_vector_and_the_request_its_end() -> None:
    engine = EmbeddingEngine(Echo())
    engine.add(request(1, 3, 1, 2))
    told = run(engine)
    assert sorted(told.vectors) == [
        (1, i, array("i", [1] * n).tobytes()) for i, n in enumerate((3, 1, 2))
    ]
    assert told.admitted == [(RequestId("r1"), 0)]
    assert told.finished == [(1, "stop")]
    assert told.failed == []


def test_a_step_takes_inputs_of_similar_length_within_its_tokens() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    engine.add(request(1, *[4] * 200, *[200] * 5))
    run(engine)
    assert echo.steps[0] == [200, 200]
    assert echo.steps[2] == [200, 4]
    assert all(len(step) * max(step) <= STEP_TOKENS for step in echo.steps)
    assert sum(map(len, echo.steps)) == 205


def test_an_input_beyond_a_steps_tokens_goes_alone() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    engine.add(request(1, STEP_TOKENS + 1, 1))
    run(engine)
    assert echo.steps == [[STEP_TOKENS + 1], [1]]


def test_small_requests_share_a_step_and_a_large_one_does_not_hold_them_for_long() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    for stream in range(20):
        engine.add(request(stream, 8))
    run(engine)
    assert echo.steps == [[8] * 20]

    engine.add(request(1, *[500] * 2048))
    engine.add(request(2, 8))
    told = engine.step()
    told = engine.step()
    assert (2, "stop") in told.finished


def test_principals_take_turns_however_many_requests_each_has() -> None:
    engine = EmbeddingEngine(Echo())
    for stream in range(1, 9):
        engine.add(request(stream, *[500] * 3, principal="a"))
    for stream in (11, 12):
        engine.add(request(stream, 500, 500, principal="b"))
    led = [engine.step().vectors[0][0] for _ in range(10)]
    assert led == [1, 11, 2, 12, 3, 11, 4, 12, 5, 6]


def test_room_that_a_leader_leaves_goes_to_other_principals_first() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    for stream in (1, 2, 3):
        engine.add(request(stream, STEP_TOKENS // 3, principal="a"))
    engine.add(request(4, STEP_TOKENS // 3, principal="b"))
    engine.add(request(5, STEP_TOKENS // 3, principal="c"))
    assert [stream for stream, _ in engine.step().finished] == [1, 4, 5]
    assert [stream for stream, _ in engine.step().finished] == [2, 3]


def test_steps_are_short_while_others_use_the_device() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    engine.add(request(1, *[8] * 500))
    engine.step()
    engine.took(len(echo.steps[0]) * 8 * 0.001)
    engine.step(shares_device=True)
    assert len(echo.steps[1]) == 3  # 25 ms at 1 ms a token
    engine.step()
    assert len(echo.steps[2]) == STEP_TOKENS // 8


def test_a_bad_input_fails_its_request_alone() -> None:
    engine = EmbeddingEngine(Echo())
    engine.add(request(1, 4, 4, first=BAD))
    engine.add(request(2, 4))
    told = run(engine)
    assert told.failed == [(RequestId("r1"), WRONG)]
    assert told.finished == [(2, "stop")]


def test_a_step_that_cannot_be_computed_fails_those_in_it() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    engine.add(request(1, 300))
    engine.add(request(2, 300))
    echo.error = OutOfMemory("cannot")
    told = engine.step()
    echo.error = None
    assert [id_ for id_, _ in told.failed] == ["r1"]
    assert run(engine).finished == [(2, "stop")]


def test_cancelled_and_paused_requests_are_not_computed() -> None:
    echo = Echo()
    engine = EmbeddingEngine(echo)
    for stream in (1, 2, 3):
        engine.add(request(stream, 4))
    engine.cancel(RequestId("r1"))
    engine.cancel(RequestId("r1"))
    engine.finish(2)
    engine.pause(3)
    told = run(engine)
    assert told.finished == [(1, "cancelled"), (2, "cancelled")]
    assert echo.steps == []
    engine.resume(3)
    engine.resume(99)
    assert run(engine).finished == [(3, "stop")]


def test_the_queue_has_a_bound_and_gives_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_QUEUED_TOKENS", 10)
    engine = EmbeddingEngine(Echo())
    engine.add(request(1, 20))  # alone it may have more
    with pytest.raises(QueueFull):
        engine.add(request(2, 1))
    engine.cancel(RequestId("r1"))
    engine.add(request(2, 10))


class EmbeddingMachine(RuleBasedStateMachine):
    """Whatever is cancelled or paused, each request ends once and has its own vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = EmbeddingEngine(Echo())
        self.lengths: dict[int, tuple[int, ...]] = {}
        self.vectors: dict[tuple[int, int], bytes] = {}
        self.ended: list[int] = []
        self.cancelled: set[int] = set()

    @rule(
        lengths=st.lists(st.integers(1, STEP_TOKENS + 5), min_size=1, max_size=6),
        principal=st.sampled_from((None, "a", "b")),
    )
    def add(self, lengths: list[int], principal: str | None) -> None:
        stream = len(self.lengths)
        self.lengths[stream] = tuple(lengths)
        self.engine.add(request(stream, *lengths, principal=principal))

    @rule(stream=st.integers(0, 8))
    def cancel(self, stream: int) -> None:
        self.cancelled.add(stream)
        self.engine.cancel(RequestId(f"r{stream}"))

    @rule(stream=st.integers(0, 8), paused=st.booleans())
    def pause(self, stream: int, paused: bool) -> None:
        (self.engine.pause if paused else self.engine.resume)(stream)

    @rule()
    def step(self) -> None:
        self.take(self.engine.step())

    def take(self, told: StepOutput) -> None:
        for stream, index, vector in told.vectors:
            assert (stream, index) not in self.vectors
            assert stream not in self.ended
            self.vectors[stream, index] = vector
        self.ended += [stream for stream, _ in told.finished]

    @invariant()
    def nobody_ends_twice(self) -> None:
        assert len(set(self.ended)) == len(self.ended)

    def teardown(self) -> None:
        for stream in self.lengths:
            self.engine.resume(stream)
        while self.engine.has_work():
            self.take(self.engine.step())
        assert sorted(self.ended) == sorted(self.lengths)
        for stream in self.lengths.keys() - self.cancelled:
            for index, length in enumerate(self.lengths[stream]):
                assert self.vectors[stream, index] == array("i", [stream] * length).tobytes()


TestEmbeddingMachine = EmbeddingMachine.TestCase
