"""What is counted of one request, by a clock that the test sets."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from cortex_core.canonical import Completed, GenerateRequest, Started, TextDelta, TextPrompt, Usage
from cortex_core.errors import CortexError, OutOfMemory, QueueFull
from cortex_core.ids import ModelId, RequestId
from cortex_core.logs import LineFormatter
from cortexd.continuation import StreamLedger
from cortexd.metrics import GatewayMetrics
from cortexd.request_record import RequestRecord

MODEL = ModelId("file:m")
REQUEST = GenerateRequest(RequestId("r"), MODEL, TextPrompt("hi"))
STARTED = Started(RequestId("r"), MODEL, 12, cached_tokens=4)


class World:
    """One request on node n that began at 100 s, and what was counted of it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.record = RequestRecord(
            GatewayMetrics(self.registry),
            lambda: self.now,
            request_id=RequestId("r"),
            path="/v1/completions",
            model=MODEL,
        )
        self.record.node = "n"
        self.ledger = StreamLedger(REQUEST)
        self.ledger.next_request()

    def token_at(self, now: float) -> None:
        self.now = now
        self.record.token()

    def counted(self, name: str, **labels: str) -> float | None:
        where = {"model": MODEL, "node": "n", **labels}
        return self.registry.get_sample_value(f"cortex_{name}", where)


def test_times_and_tokens_of_a_whole_answer() -> None:
    world = World()
    world.ledger.take(STARTED)
    world.token_at(100.5)
    world.token_at(101.0)
    world.ledger.take(Completed(Usage(12, 21, cached_tokens=8)))
    world.now = 102.5
    world.record.end(world.ledger.used(), "completed")

    assert world.counted("time_to_first_token_seconds_sum") == 0.5
    assert world.counted("tokens_per_second_sum") == 10.0
    assert world.counted("request_duration_seconds_sum") == 2.5
    assert world.counted("prompt_tokens_total") == 12
    assert world.counted("cached_prompt_tokens_total") == 8
    assert world.counted("completion_tokens_total") == 21
    assert world.counted("requests_total") == 1
    assert world.counted("requests_cancelled_total") == 0


def test_a_cancelled_request_counts_the_tokens_that_were_sent() -> None:
    world = World()
    world.ledger.take(STARTED)
    world.ledger.take(TextDelta(0, "a", seq=0, token_ids=(1,)))
    world.token_at(101.0)
    world.record.end(world.ledger.used(), "cancelled")

    assert world.counted("requests_cancelled_total") == 1
    assert world.counted("completion_tokens_total") == 1
    assert world.counted("time_to_first_token_seconds_count") == 1
    assert world.counted("tokens_per_second_count") == 0  # one token has no rate


def test_a_refused_request_has_no_first_token() -> None:
    world = World()
    world.now = 103.0
    world.record.end(world.ledger.used(), QueueFull("cannot queue"))

    assert world.counted("requests_total") == 1
    assert world.counted("request_errors_total", code="queue_full") == 1
    assert world.counted("time_to_first_token_seconds_count") == 0
    assert world.counted("prompt_tokens_total") == 0


def test_a_stream_that_goes_on_elsewhere_is_counted_where_it_broke() -> None:
    world = World()
    world.record.continued()
    world.record.node = "m"

    assert world.counted("streams_continued_total") == 1


def line_of(caplog: pytest.LogCaptureFixture) -> str:
    """Return the one line that was logged."""
    (record,) = caplog.records
    return LineFormatter().format(record)


def test_the_log_has_all_of_a_request_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.token_at(100.5)
    world.now = 102.5
    world.record.end(Usage(12, 21, cached_tokens=4), "completed")
    assert line_of(caplog) == (
        "info cortexd.request_record request completed request_id=r path=/v1/completions "
        "model=file:m node=n prompt_tokens=12 cached_tokens=4 completion_tokens=21 ttft_s=0.5 "
        "duration_s=2.5"
    )


@pytest.mark.parametrize(
    ("error", "first_at", "begins"),
    [
        (QueueFull("cannot queue", retry_after_s=2.0), None, "info"),
        (OutOfMemory("cannot load"), None, "warning"),
        (QueueFull("cannot queue", retry_after_s=2.0), 101.0, "warning"),
    ],
)
def test_the_line_of_a_failed_request_has_its_cause(
    error: CortexError, first_at: float | None, begins: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.record.node = ""
    if first_at is not None:
        world.token_at(first_at)
    world.record.end(Usage(0, 0), error)
    line = line_of(caplog)
    phrase = "request failed" if first_at is None else "stream broken off"
    assert line.startswith(f"{begins} cortexd.request_record {phrase} request_id=r ")
    assert line.endswith(f'code={error.code} cause="{error.message}"')
    assert "node=" not in line
    assert ("ttft_s=" in line) == (first_at is not None)
