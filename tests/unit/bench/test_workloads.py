"""The workloads against a server that gives tokens as fast as they are read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from bench.serve import interference, running, steady
from bench.serve.prompts import VOCABULARY, PromptMaker
from bench.serve.running import RunningStreams, StreamEnded
from bench.serve.target import Target
from bench.serve.texts import copied_share, copying, prose


class TokenServer:
    """Streams `max_tokens` chunks to each request, or fewer for those `limit` is set for."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.open = 0
        self.limit: int | None = None
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["TokenServer"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.bodies.append(body)
        self.open += 1
        tokens = min(body["max_tokens"], self.limit or body["max_tokens"])
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for _ in range(tokens):
                writer.write(b'data: {"choices": [{"text": "river "}]}\n\n')
                await writer.drain()
                await asyncio.sleep(0)
            usage = {"choices": [], "usage": {"completion_tokens": tokens}}
            writer.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer().running() as made:
        yield made


@pytest.fixture
def target(server: TokenServer) -> Target:
    return Target(f"http://127.0.0.1:{server.port}", "m", "completions", [], {}, 30.0)


@pytest.fixture
def prompts(tmp_path: Path) -> PromptMaker:
    words = ["[UNK]", ".", *VOCABULARY.split()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
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
