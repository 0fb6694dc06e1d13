"""The workloads against a server that gives tokens as fast as they are read."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.serve import interference, machine, mixed, running, steady
from bench.serve.mixed import MIX, REQUESTS_PER_S, arrivals, mixed_traffic
from bench.serve.prompts import PromptMaker
from bench.serve.running import RunningStreams, StreamEnded
from bench.serve.stream import StreamResult
from bench.serve.target import Target
from bench.serve.texts import copied_share, copying, prose
from bench.serve.workloads import measure
from tests.fakes.token_server import TokenServer, save_tokenizer


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer().running() as made:
        yield made


@pytest.fixture
def target(server: TokenServer) -> Target:
    return Target(f"http://127.0.0.1:{server.port}", "m", "completions", [], {}, 30.0)


@pytest.fixture
def prompts(tmp_path: Path) -> PromptMaker:
    save_tokenizer(tmp_path / "tokenizer.json")
    return PromptMaker(tmp_path / "tokenizer.json", 1)


async def test_streams_run_until_they_are_stopped(server: TokenServer, target: Target) -> None:
    async with RunningStreams(target, ["a", "b"]) as streams:
        await streams.have(3)
        await streams.have_more(5)
        assert min(len(r.chunk_times) for r in streams.results) >= 8
        assert server.open == 2
    assert all(r.ended > r.chunk_times[-1] for r in streams.results)


async def test_a_stream_that_ends_too_soon_is_told(server: TokenServer, target: Target) -> None:
    server.limit = 4
    async with RunningStreams(target, ["a"]) as streams:
        with pytest.raises(StreamEnded, match="it had 4 tokens"):
            await streams.have(5)


async def test_long_contexts_are_counted_while_all_decode(
    server: TokenServer, target: Target, prompts: PromptMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_TOKENS", 100_000)
    results, figures = await steady.long_contexts(target, prompts, 2)
    assert len(results) == 32
    assert len(figures["total_tokens_per_s_all"]) == 2
    assert min(figures["total_tokens_per_s_all"]) > 0
    assert len({body["prompt"] for body in server.bodies}) == 32


async def test_a_prompt_that_does_not_fit_is_left_out(
    server: TokenServer, prompts: PromptMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_TOKENS", 100_000)
    target = Target(
        f"http://127.0.0.1:{server.port}", "m", "completions", [], {}, 30.0, context_tokens=8192
    )
    results, figures = await interference.incoming_prompt(target, prompts, 1)
    assert len(results) == 9
    assert figures["skipped_18000"] == "the context has 8192 tokens"
    assert figures["itl_beside_4000_max_ms"] >= figures["itl_beside_4000_p95_ms"] > 0
    assert figures["ttft_4000_ms"] > 0


@pytest.mark.parametrize(("refused", "rounds"), [({17}, 2), ({8}, 2), ({8, 17, 26}, 0)])
async def test_a_prompt_that_fails_is_an_error_and_costs_its_own_round_only(
    server: TokenServer,
    prompts: PromptMaker,
    monkeypatch: pytest.MonkeyPatch,
    refused: set[int],
    rounds: int,
) -> None:
    """A round has eight streams, then its prompt: requests 8, 17 and 26."""
    monkeypatch.setattr(running, "MAX_TOKENS", 100_000)
    monkeypatch.setattr(interference, "INCOMING_TOKENS", (400,))
    server.refused = refused
    target = Target(f"http://127.0.0.1:{server.port}", "m", "completions", [], {}, 30.0)
    figures = await measure("W6", target, prompts, 3)
    assert len(figures.get("ttft_400_ms_all", [])) == rounds
    assert figures["errors"] == len(refused)
    assert "HTTP 500" in figures["first_error"]
    assert not figures["counts"]


@pytest.mark.parametrize(
    ("workload", "figure"), [("W5", "total_tokens_per_s"), ("W6", "ttft_400_ms")]
)
@pytest.mark.parametrize("refused", [True, False])
async def test_a_stream_that_ends_costs_its_own_round_only(
    server: TokenServer,
    target: Target,
    prompts: PromptMaker,
    monkeypatch: pytest.MonkeyPatch,
    workload: str,
    figure: str,
    refused: bool,
) -> None:
    monkeypatch.setattr(running, "MAX_TOKENS", 100_000)
    monkeypatch.setattr(interference, "INCOMING_TOKENS", (400,))
    (server.refused if refused else server.short).add(2)
    figures = await measure(workload, target, prompts, 3)
    assert len(figures[f"{figure}_all"]) == 2
    assert figures["errors"] == 1
    assert ("HTTP 500" if refused else "it had 4 tokens") in figures["first_error"]
    assert not figures["counts"]


async def test_a_workload_without_a_whole_round_has_no_figures(
    server: TokenServer, target: Target, prompts: PromptMaker
) -> None:
    server.limit = 4
    figures = await measure("W5", target, prompts, 2)
    assert "total_tokens_per_s" not in figures
    assert "it had 4 tokens" in figures["first_error"]


async def test_the_error_of_a_prompt_is_told_before_those_of_streams(
    prompts: PromptMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interference, "INCOMING_TOKENS", (400,))
    breaking, all_broken = asyncio.Event(), asyncio.Event()
    broken: list[StreamResult] = []

    class Failing(Target):
        """All streams break when the prompt comes, which is refused then."""

        async def complete(self, *_: object, into: StreamResult | None = None) -> StreamResult:
            if into is None:
                breaking.set()
                await all_broken.wait()
                return StreamResult(error="HTTP 500: no room")
            while not breaking.is_set():
                into.chunk_times.append(time.perf_counter())
                await asyncio.sleep(0)
            into.error = "it broke"
            broken.append(into)
            if len(broken) == interference.DECODING_STREAMS:
                all_broken.set()
            return into

    target = Failing("http://127.0.0.1:9", "m", "completions", [], {}, 30.0)
    figures = await measure("W6", target, prompts, 1)
    assert figures["first_error"] == "HTTP 500: no room"
    assert figures["errors"] == 1 + interference.DECODING_STREAMS


@pytest.mark.parametrize("tokens_per_chunk", [1, 2])
@pytest.mark.parametrize("workload", ["W2", "W5"])
async def test_chunks_are_held_against_tokens_also_where_streams_are_cut(
    server: TokenServer,
    target: Target,
    prompts: PromptMaker,
    monkeypatch: pytest.MonkeyPatch,
    workload: str,
    tokens_per_chunk: int,
) -> None:
    monkeypatch.setattr(running, "MAX_TOKENS", 100_000)
    monkeypatch.setattr(machine, "FOREIGN_CORES_LIMIT", 1000.0)  # whoever else works here
    server.tokens_per_chunk = tokens_per_chunk
    figures = await measure(workload, target, prompts, 1)
    assert figures["errors"] == 0
    assert figures["chunks_per_token"] == pytest.approx(1 / tokens_per_chunk, abs=0.02)
    assert figures["counts"] == (tokens_per_chunk == 1)


@pytest.mark.parametrize(("workload", "counts"), [("copy", True), ("prose", True), ("W1", False)])
async def test_drafts_may_come_in_one_chunk_where_they_are_what_is_looked_at(
    server: TokenServer,
    target: Target,
    prompts: PromptMaker,
    monkeypatch: pytest.MonkeyPatch,
    workload: str,
    counts: bool,
) -> None:
    monkeypatch.setattr(machine, "FOREIGN_CORES_LIMIT", 1000.0)  # whoever else works here
    server.tokens_per_chunk = 2
    figures = await measure(workload, target, prompts, 1)
    assert figures["errors"] == 0
    assert figures["chunks_per_token"] == pytest.approx(0.5, abs=0.02)
    assert figures["counts"] == counts


async def test_chunks_of_all_streams_are_held_against_all_their_tokens(
    prompts: PromptMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two short streams have a chunk for each token, a long one for every second."""
    lengths = iter([(10, 10), (10, 10), (40, 80)])

    class Timed(Target):
        async def complete(self, *_: object, **__: object) -> StreamResult:
            chunks, tokens = next(lengths)
            times = [11.0 + number for number in range(chunks)]
            return StreamResult(10.0, 100.0, times, usage={"completion_tokens": tokens})

    monkeypatch.setattr(machine, "FOREIGN_CORES_LIMIT", 1000.0)
    target = Timed("http://127.0.0.1:9", "m", "completions", [], {}, 30.0)
    figures = await measure("W1", target, prompts, 3)
    assert figures["chunks_per_token"] == pytest.approx(0.6)
    assert not figures["counts"]


async def test_many_streams_are_told_end_to_end_and_decoding(prompts: PromptMaker) -> None:
    """Each of 16 streams has three tokens within four seconds, the first of them after one."""

    class Timed(Target):
        async def complete(self, *_: object, **__: object) -> StreamResult:
            return StreamResult(started=10.0, ended=14.0, chunk_times=[11.0, 12.0, 13.0])

    target = Timed("http://127.0.0.1:9", "m", "completions", [], {}, 30.0)
    _, figures = await steady.many_streams(16)(target, prompts, 2)
    assert figures["total_tokens_per_s_all"] == [16 * 3 / 4] * 2
    assert figures["batch_decode_tokens_per_s_all"] == [(16 * 3 - 1) / 2] * 2


async def test_streams_that_wait_for_each_other_do_not_add_up(prompts: PromptMaker) -> None:
    """Two have three tokens each within two seconds, the second after the first."""
    begins = iter((11.0, 14.0))

    class Timed(Target):
        async def complete(self, *_: object, **__: object) -> StreamResult:
            at = next(begins)
            return StreamResult(started=10.0, ended=20.0, chunk_times=[at, at + 1, at + 2])

    target = Timed("http://127.0.0.1:9", "m", "completions", [], {}, 30.0)
    _, figures = await steady.many_streams(2)(target, prompts, 1)
    assert figures["batch_decode_tokens_per_s_all"] == [5 / 5]


async def test_prose_is_sampled_and_copying_is_not(
    server: TokenServer, target: Target, prompts: PromptMaker
) -> None:
    await copying(target, prompts, 1)
    await prose(target, prompts, 1)
    first, second = server.bodies
    assert (first["temperature"], second["temperature"]) == (0, 0.8)
    assert isinstance(second["seed"], int)


@pytest.mark.parametrize(
    ("text", "share"), [(" river stone", 1.0), ("river bank", 0.6), ("", 0.0), ("sea", 0.0)]
)
def test_the_copied_share_counts_from_the_beginning(text: str, share: float) -> None:
    assert copied_share("river stone wall", text) == pytest.approx(share)


def test_mixed_traffic_is_the_same_for_every_server() -> None:
    first, second = arrivals(0), arrivals(1)
    assert first == arrivals(0)
    assert [a.at_s for a in first] != [a.at_s for a in second]
    for found in (first, second):
        kinds = [each.kind for each in found]
        assert {kind: kinds.count(kind) for kind in MIX} == {k: k.requests for k in MIX}
        assert all(each.output_tokens in each.kind.output_tokens for each in found)
        times = [each.at_s for each in found]
        assert times == sorted(times)


def test_mixed_traffic_comes_at_its_rate() -> None:
    """A Poisson process: the mean of the gaps is as large as their deviation."""
    times = [[0.0, *(each.at_s for each in arrivals(number))] for number in range(100)]
    gaps = [b - a for each in times for a, b in itertools.pairwise(each)]
    assert statistics.mean(gaps) == pytest.approx(1 / REQUESTS_PER_S, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / REQUESTS_PER_S, rel=0.05)


async def test_mixed_traffic_sends_each_request_whatever_became_of_others(
    server: TokenServer, target: Target, prompts: PromptMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed, "REQUESTS_PER_S", 1e6)
    server.refused = {3}
    figures = await measure("mixed", target, prompts, 2)
    assert (figures["requests"], figures["errors"], figures["counts"]) == (80, 1, False)
    assert len(figures["ttft_p95_ms_all"]) == 2
    assert figures["ttft_p95_ms"] >= figures["ttft_p50_ms"] > 0
    lengths = [body["max_tokens"] for body in server.bodies]
    expected = [each.output_tokens for number in (0, 1) for each in arrivals(number)]
    assert sorted(lengths) == sorted(expected)
    prefixed = [str(b["prompt"]).partition("\n")[0] for b in server.bodies if "\n" in b["prompt"]]
    assert sorted(prefixed.count(prefix) for prefix in set(prefixed)) == [10, 10]


async def test_mixed_traffic_is_told_by_percentiles(
    prompts: PromptMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty requests of three tokens in two seconds; four have their first one late."""
    monkeypatch.setattr(mixed, "REQUESTS_PER_S", 1e6)
    firsts = iter([10.1] * 36 + [10.5] * 4)

    class Timed(Target):
        async def complete(self, *_: object, **__: object) -> StreamResult:
            first = next(firsts)
            return StreamResult(10.0, 12.0, [first, first + 0.01, first + 0.05])

    target = Timed("http://127.0.0.1:9", "m", "completions", [], {}, 30.0)
    _, figures = await mixed_traffic(target, prompts, 1)
    assert figures["total_tokens_per_s"] == pytest.approx(40 * 3 / 2)
    assert figures["ttft_p50_ms"] == pytest.approx(100)
    assert figures["ttft_p95_ms"] == pytest.approx(500)
    assert figures["itl_p50_ms"] == pytest.approx(25)
    assert figures["itl_p95_ms"] == pytest.approx(40)
