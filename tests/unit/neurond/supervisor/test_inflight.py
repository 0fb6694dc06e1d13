"""Requests in flight: prompt ranges, stream ids, records to streams."""

from array import array

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cortex_core.canonical import SamplingParams
from cortex_core.errors import (
    DeviceFailed,
    ErrorInfo,
    Overloaded,
    ProtocolError,
    QueueFull,
    Timeout,
)
from cortex_core.ids import ModelId, RequestId
from cortex_core.stall_watch import NODE_STALLED_S
from neurond import protocol
from neurond.ring_records import encode_finish, encode_notice, encode_token, encode_vector
from neurond.stream_items import Admitted, Adopted, ChoiceFinished, NotHeld, Token, Vector
from neurond.supervisor.jobs import EmbedJob, EngineJob
from neurond.supervisor.streams import HIGH_WATER_TOKENS
from tests.fakes.actor_node import collect
from tests.fakes.waiting import WAIT_S
from tests.unit.neurond.supervisor.inflight_rig import MODEL, Fixture


async def test_inputs_lie_one_behind_another_and_their_vectors_come_back() -> None:
    fixture = Fixture(area_bytes=64)
    job = EmbedJob(
        request_id=RequestId("r"),
        model_id=MODEL,
        inputs=[[5, 6], [7]],
        dimensions=2,
        principal="ada",
    )
    stream = fixture.table.submit(job)

    (command,) = fixture.actor.data
    assert isinstance(command, protocol.Embed)
    assert (command.input_tokens, command.dimensions, command.principal) == ((2, 1), 2, "ada")
    place = command.prompt_offset
    assert array("i", fixture.area[place : place + 12]).tolist() == [5, 6, 7]
    fixture.table.admitted(protocol.Admitted(command.request_id, 0))
    vector = encode_vector(command.stream, 1, b"abcdefgh")
    fixture.table.records([vector, encode_finish(command.stream, "stop")])

    items = await collect(stream)
    assert items == [Admitted(0), Vector(1, b"abcdefgh"), ChoiceFinished(0, "stop")]
    assert fixture.ended == [MODEL]
    fixture.table.submit(job)  # its range of 64 bytes was given back


async def test_the_prompt_lies_in_the_area_and_is_described_by_the_command() -> None:
    fixture = Fixture()
    fixture.submit([1])

    fixture.table.submit(
        EngineJob(
            request_id=RequestId("r"),
            model_id=MODEL,
            prompt_token_ids=(2, 3),
            replayed_token_ids=(4,),
            sampling=SamplingParams(),
            max_tokens=5,
            seed=1,
        )
    )

    command = fixture.actor.data[1]
    start = command.prompt_offset
    assert array("i", fixture.area[start : start + 12]).tolist() == [2, 3, 4]
    assert (command.num_prompt_tokens, command.num_replayed_tokens) == (3, 1)
    assert command.request_id != fixture.actor.data[0].request_id
    assert command.first_stream != fixture.actor.data[0].first_stream


async def test_records_reach_their_streams() -> None:
    fixture = Fixture()
    one, two = fixture.submit([1]), fixture.submit([1], n=2)
    first, second = (command.first_stream for command in fixture.actor.data)

    fixture.table.records(
        [
            encode_notice(protocol.NotHeld(fixture.actor.data[1].request_id)),
            encode_notice(protocol.NotHeld(RequestId("gone"))),
            encode_notice(protocol.Admitted(fixture.actor.data[1].request_id, 4)),
            encode_notice(protocol.Adopted(fixture.actor.data[1].request_id, 6)),
            encode_notice(protocol.Adopted(RequestId("gone"), 6)),
            encode_token(second + 1, 20, -0.5, []),
            encode_token(first, 10, None, []),
            encode_finish(first, "stop"),
            encode_finish(second, "length"),
            encode_finish(second + 1, "length"),
        ]
    )

    assert await collect(one) == [Token(0, 10), ChoiceFinished(0, "stop")]
    assert await collect(two) == [
        NotHeld(),
        Admitted(4),
        Adopted(6),
        Token(1, 20, -0.5),
        ChoiceFinished(0, "length"),
        ChoiceFinished(1, "length"),
    ]
    assert fixture.ended == [MODEL, MODEL]
    assert len(fixture.table) == 0


async def test_counts_tell_running_from_waiting() -> None:
    fixture = Fixture()
    fixture.submit([1])
    fixture.submit([1])

    fixture.table.admitted(protocol.Admitted(fixture.actor.data[0].request_id, 0))

    assert fixture.table.counts(MODEL) == (1, 1)
    assert fixture.table.counts(ModelId("file:other")) == (0, 0)


@pytest.mark.parametrize("how", ["admitted", "failed", "finished"])
async def test_a_full_area_is_free_again_when_the_actor_is_done_with_it(how: str) -> None:
    fixture = Fixture(area_bytes=64)
    fixture.submit(list(range(16)))
    with pytest.raises(Overloaded, match="64 bytes of token ids, and 0 of 64 are free"):
        fixture.submit(list(range(16)))
    command = fixture.actor.data[0]

    if how == "admitted":
        fixture.table.admitted(protocol.Admitted(command.request_id, 0))
    elif how == "failed":
        error = ErrorInfo("queue_full", "full")
        fixture.table.request_failed(protocol.RequestFailed(command.request_id, error))
    else:
        fixture.table.records([encode_finish(command.first_stream, "cancelled")])

    fixture.submit(list(range(16)))


@pytest.mark.parametrize(("fault", "error"), [("full", Overloaded), ("broken", OverflowError)])
async def test_a_command_that_cannot_be_sent_costs_nothing(
    fault: str, error: type[Exception]
) -> None:
    fixture = Fixture(area_bytes=64)
    setattr(fixture.actor, fault, True)
    for _ in range(3):
        with pytest.raises(error):
            fixture.submit(list(range(16)))

    setattr(fixture.actor, fault, False)
    fixture.submit(list(range(16)))

    assert len(fixture.table) == 1


async def test_the_limit_on_requests_holds() -> None:
    fixture = Fixture(max_requests=1)
    fixture.submit([1])

    with pytest.raises(QueueFull) as caught:
        fixture.submit([1])

    assert caught.value.retry_after_s is not None


async def test_a_client_that_leaves_keeps_its_place_until_the_engine_lets_go() -> None:
    fixture = Fixture()
    stream = fixture.submit([1])
    command = fixture.actor.data[0]

    stream.cancel()
    stream.cancel()

    assert fixture.actor.control == [protocol.Cancel(command.request_id)]
    assert len(fixture.table) == 1
    fixture.table.records([encode_finish(command.first_stream, "cancelled")])
    assert len(fixture.table) == 0


async def test_a_matched_stop_string_ends_one_stream() -> None:
    fixture = Fixture()
    stream = fixture.submit([1], n=2)

    stream.finish_choice(1)

    streams = fixture.actor.data[0].first_stream
    assert fixture.actor.control == [protocol.FinishStream(streams + 1)]


async def test_a_death_fails_everything_and_later_records_are_nobodys() -> None:
    fixture = Fixture()
    streams = [fixture.submit([1]) for _ in range(2)]

    fixture.table.fail_all(DeviceFailed("gone"))
    fixture.table.records([encode_token(1, 1, None, [])])

    for stream in streams:
        with pytest.raises(DeviceFailed):
            await stream.take(WAIT_S)
    assert fixture.ended == [MODEL, MODEL]


async def test_cancel_all_fails_streams_and_frees_the_engine() -> None:
    fixture = Fixture()
    stream = fixture.submit([1])
    command = fixture.actor.data[0]

    fixture.table.cancel_all(DeviceFailed("draining"))

    with pytest.raises(DeviceFailed):
        await stream.take(WAIT_S)
    assert fixture.actor.control == [protocol.Cancel(command.request_id)]
    assert len(fixture.table) == 1


async def test_a_request_that_nobody_reads_ends_in_the_engine_too() -> None:
    fixture = Fixture()
    stream = fixture.submit([1])
    command = fixture.actor.data[0]
    fixture.table.records(
        encode_token(command.first_stream, 1, None, []) for _ in range(HIGH_WATER_TOKENS + 1)
    )

    for now in (0.0, NODE_STALLED_S):
        fixture.table.tick(now)

    assert fixture.actor.control[-1] == protocol.Cancel(command.request_id)
    fixture.table.records([encode_finish(command.first_stream, "cancelled")])
    assert len(fixture.table) == 0
    with pytest.raises(Timeout):
        await collect(stream)


async def test_noise_on_the_ring_is_refused_and_no_token_comes_behind_it() -> None:
    fixture = Fixture()
    stream = fixture.submit([1])
    one, other = (encode_token(1, token, None, []) for token in (5, 6))

    with pytest.raises(ProtocolError):
        fixture.table.records([one, b"noise"])
    fixture.table.records([other])

    assert await stream.take(WAIT_S) == [Token(0, 5, None, ())]
    with pytest.raises(DeviceFailed, match="cannot read a token record"):
        await stream.take(WAIT_S)
    assert fixture.ended == [MODEL]


class Requests(RuleBasedStateMachine):
    """In any order of events no range and no stream id is ever in use twice, or lost."""

    def __init__(self) -> None:
        super().__init__()
        self.fixture = Fixture(area_bytes=128, max_requests=6)
        self.held: dict[RequestId, range] = {}
        self.open: dict[int, RequestId] = {}

    @rule(size=st.integers(1, 20), n=st.integers(1, 3))
    def submit(self, size: int, n: int) -> None:
        try:
            self.fixture.submit([0] * size, n)
        except (Overloaded, QueueFull):
            return
        command = self.fixture.actor.data[-1]
        mine = range(command.prompt_offset, command.prompt_offset + 4 * size)
        assert mine.stop <= 128
        for other in self.held.values():
            assert mine.stop <= other.start or other.stop <= mine.start
        self.held[command.request_id] = mine
        for stream in range(command.first_stream, command.first_stream + n):
            assert stream not in self.open
            self.open[stream] = command.request_id

    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        if self.held:
            request_id = data.draw(st.sampled_from(sorted(self.held)))
            self.fixture.table.admitted(protocol.Admitted(request_id, 0))
            del self.held[request_id]

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.open:
            stream = data.draw(st.sampled_from(sorted(self.open)))
            self.fixture.table.records([encode_finish(stream, "stop")])
            request_id = self.open.pop(stream)
            if request_id not in self.open.values():
                self.held.pop(request_id, None)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        if self.open:
            request_id = data.draw(st.sampled_from(sorted(set(self.open.values()))))
            error = ErrorInfo("internal_error", "broken")
            self.fixture.table.request_failed(protocol.RequestFailed(request_id, error))
            self.open = {s: r for s, r in self.open.items() if r != request_id}
            self.held.pop(request_id, None)

    @invariant()
    def counts_agree(self) -> None:
        requests = set(self.open.values())
        assert len(self.fixture.table) == len(requests)
        running, waiting = self.fixture.table.counts(MODEL)
        assert (running, waiting) == (len(requests - set(self.held)), len(self.held))


TestRequests = Requests.TestCase
