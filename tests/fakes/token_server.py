"""A completions server that gives tokens as fast as they are read.

`python -m tests.fakes.token_server PORT HOLD_AFTER` runs it until SIGTERM, and then until no stream
is open; with HOLD_AFTER 0 no stream is held.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from bench.serve.prompts import VOCABULARY
from tests.fakes.waiting import wait_until_async


class TokenServer:
    """Streams `max_tokens` tokens to each request, or as few as `limit` says.

    Requests whose numbers, from 0, are in `refused` get status 500, and those in `short` 4 tokens.
    A chunk has `tokens_per_chunk`. After so many chunks as `hold_after` says, if that is not 0, a
    stream stands still until its client goes.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.open = 0
        self.limit: int | None = None
        self.refused: set[int] = set()
        self.short: set[int] = set()
        self.hold_after = 0
        self.tokens_per_chunk = 1
        self.port = 0

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["TokenServer"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.bodies.append(body)
        if len(self.bodies) - 1 in self.refused:
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\n\r\nno room")
            writer.close()
            return
        self.open += 1
        limit = 4 if len(self.bodies) - 1 in self.short else self.limit
        tokens = min(body["max_tokens"], limit or body["max_tokens"])
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            text = "river " * self.tokens_per_chunk
            chunk = json.dumps({"choices": [{"text": text}]})
            for number in range(tokens // self.tokens_per_chunk):
                if number and number == self.hold_after:
                    _say("held")
                    await reader.read()
                    return
                writer.write(f"data: {chunk}\n\n".encode())
                await writer.drain()
                await asyncio.sleep(0)
            usage = {"choices": [], "usage": {"completion_tokens": tokens}}
            writer.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


def save_tokenizer(path: Path) -> None:
    """Write a tokenizer for which each word of the client's prompts is a token."""
    words = ["[UNK]", ".", *VOCABULARY.split()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path))


async def _serve(port: int, hold_after: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = TokenServer()
    server.hold_after = hold_after
    async with server.running(port):
        await stopping.wait()
        await wait_until_async(lambda: not server.open)
    _say("drained")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(*map(int, sys.argv[1:])))
