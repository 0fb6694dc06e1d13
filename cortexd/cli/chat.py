"""`cortex chat`: one question, or a conversation, in the terminal."""

import argparse
import asyncio
import sys
from contextlib import aclosing

import msgspec
from rich.console import Console

from cortex_core.errors import CortexError
from cortex_core.terminal import print_json
from cortexd.chat_client import Busy, ChatClient, Said, Spent, Turn
from cortexd.cli.gateway import base_url


class Answer(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    model: str
    text: str
    usage: Spent | None


def chat(options: argparse.Namespace) -> int:
    """Ask once, or talk until the end of the input."""
    turns = [Turn("system", options.system)] if options.system else []
    with asyncio.Runner() as runner:
        talk = Talk(ChatClient(base_url(options)), max_tokens=options.max_tokens)
        try:
            model = options.model or runner.run(talk.client.pick_model())
            if options.question is not None:
                turns.append(Turn("user", options.question))
                answer = runner.run(talk.answer(model, turns, quiet=options.json))
                if options.json:
                    print_json(answer)
                return 0
            return _converse(runner, talk, model, turns)
        finally:
            talk.client.close()


class Talk:
    """Prints answers as they come."""

    def __init__(self, client: ChatClient, *, max_tokens: int | None = None) -> None:
        self.client = client
        self._max_tokens = max_tokens

    async def answer(self, model: str, turns: list[Turn], *, quiet: bool = False) -> Answer:
        """Ask, print the answer on stdout and what is waited for on stderr; return it whole.

        Raises:
            CortexError: what the gateway answered instead.
        """
        text, usage = "", None
        waiting = Console(stderr=True, quiet=quiet).status("waiting")
        pieces = self.client.ask(model, turns, max_tokens=self._max_tokens)
        with waiting:
            async with aclosing(pieces):
                async for piece in pieces:
                    match piece:
                        case Busy(doing=doing):
                            waiting.update(doing)
                        case Said(text=more):
                            waiting.stop()
                            text += more
                            if not quiet:
                                print(more, end="", flush=True)
                        case Spent():
                            usage = piece
        if not quiet:
            print()
        return Answer(model, text, usage)


def _converse(runner: asyncio.Runner, talk: Talk, model: str, turns: list[Turn]) -> int:
    """Read lines from stdin, each a turn; Ctrl-C stops an answer, Ctrl-D ends."""
    interactive = sys.stdin.isatty()
    if interactive:
        print(f"talking to {model}; Ctrl-D ends", file=sys.stderr)
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return 0
        if not line.strip():
            continue
        turns.append(Turn("user", line.strip()))
        try:
            turns.append(Turn("assistant", runner.run(talk.answer(model, turns)).text))
        except KeyboardInterrupt:
            turns.pop()
            print(file=sys.stderr)
        except CortexError as error:
            if not interactive:
                raise
            turns.pop()
            print(f"cortex: {error.message}", file=sys.stderr)
