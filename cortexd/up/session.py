"""One run of `cortex up`: fetch, start, ask, stay, and leave nothing behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cortex_core.errors import InternalError, Timeout
from cortex_core.ids import ModelId
from cortex_core.model_folder import is_complete, model_folder
from cortexd.chat_client import Busy, ChatClient, Said, Spent, Turn
from cortexd.health_probe import HealthProbe
from cortexd.listening import check_free
from cortexd.up.configs import DRAIN_TIMEOUT_S, HOST, cortex_toml, neuron_toml, write_configs
from cortexd.up.daemons import Daemon
from cortexd.up.defaults import UpPorts
from cortexd.up.environment import daemon_environment
from cortexd.up.folders import UpFolders
from cortexd.up.hints import hints

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

START_TIMEOUT_S: Final = 120.0
QUIET_START_S: Final = 1.0
"""A start that takes longer says what is waited for."""
ANSWER_TOKENS: Final = 200
STOP_GRACE_S: Final = DRAIN_TIMEOUT_S + 15.0

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class UpOptions(msgspec.Struct, frozen=True):
    """What the user asked for."""

    ports: UpPorts
    model: ModelId
    ask: str
    once: bool


class Stopped(Exception):
    """The user does not want to go on."""


class DaemonEnded(InternalError):
    """A daemon ended that should not have; the message has its last words."""


class UpSession:
    """Holds the daemons. Progress goes to stderr; the answer goes to stdout."""

    def __init__(self, folders: UpFolders, options: UpOptions) -> None:
        self._folders = folders
        self._options = options
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        files = {
            "CORTEX": cortex_toml(folders, options.ports),
            "NEURON": neuron_toml(folders, options.ports, options.model),
        }
        self._environment = daemon_environment(os.environ, files)
        self._neuron = self._daemon("neuron", "neurond.cli", str(folders.neuron_toml))
        self._gateway = self._daemon("cortex", "cortexd.cli", str(folders.cortex_toml))
        self._running: list[Daemon] = []

    @cached_property
    def _console(self) -> "Console":
        # Imported once there is something to show: the processes that start have use for the time.
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    async def run(self) -> None:
        """Return when the user has had enough, or after the answer if only that was wanted.

        Raises:
            DaemonEnded: a daemon ended by itself.
            CortexError: nothing came of the first question, or a port is taken.
        """
        loop = asyncio.get_running_loop()
        for signum in _STOP_SIGNALS:
            loop.add_signal_handler(signum, self._on_signal)
        try:
            await self._run()
        except Stopped:
            return

    async def _run(self) -> None:
        ports = self._options.ports
        for name in ("gateway", "metrics", "neuron"):
            check_free(f"{HOST}:{getattr(ports, name)}", key=f"--{name}-port")
        write_configs(self._folders, ports, self._options.model)
        async with AsyncExitStack() as stack:
            # The gateway ends first: without its node it would have clients wait for another one.
            for daemon in (self._neuron, self._gateway):
                stack.push_async_callback(self._stop, daemon)
            model = model_folder(self._folders.neuron_state, self._options.model)
            if is_complete(model):
                # The node has more to do until it can answer.
                self._start(self._neuron)
                self._start(self._gateway)
            else:
                self._start(self._gateway)
                await self._fetch(stack)
                self._start(self._neuron)
            await self._or_stop(self._ready(), timeout_s=START_TIMEOUT_S)
            await self._or_stop(self._ask())
            if self._options.once:
                return
            # Lines to copy: as they are, without markup and without wrapping.
            hint = hints(ports, self._options.model, self._options.ask)
            self._console.print(hint, soft_wrap=True, markup=False, highlight=False)
            self._console.print("Ctrl-C stops it.")
            await self._or_stop(asyncio.Event().wait())

    def _daemon(self, name: str, module: str, config: str) -> Daemon:
        return Daemon(
            name,
            module,
            ["serve", "--config", config],
            environment=self._environment,
            log=self._folders.log(name),
        )

    def _start(self, daemon: Daemon) -> None:
        daemon.start()
        self._running.append(daemon)

    async def _stop(self, daemon: Daemon) -> None:
        if daemon in self._running:
            self._running.remove(daemon)
        await daemon.stop(STOP_GRACE_S, self._hurry)

    async def _fetch(self, stack: AsyncExitStack) -> None:
        """Fetch the model in a process of its own, which shows a progress bar."""
        arguments = ["pull", "--config", str(self._folders.neuron_toml), self._options.model]
        fetch = Daemon(
            "neuron pull", "neurond.cli", arguments, environment=self._environment, log=None
        )
        fetch.start()
        # One that is stopped leaves the cursor hidden, as it is behind a progress bar.
        stack.callback(self._console.show_cursor)
        stack.push_async_callback(fetch.stop, STOP_GRACE_S, self._hurry)
        status = await self._or_stop(asyncio.shield(fetch.exited))
        if status.returncode != 0:
            raise InternalError(f"cannot fetch {self._options.model}: see the message above")

    async def _ready(self) -> None:
        probe = HealthProbe((HOST, self._options.ports.gateway), nodes=1)
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_START_S):
                await probe.until_ok()
                return
        with self._console.status("starting the gateway and the node"):
            await probe.until_ok()

    async def _ask(self) -> None:
        """Put the first question and print the answer as it comes."""
        client = ChatClient(f"http://{HOST}:{self._options.ports.gateway}")
        began_at = time.monotonic()
        first_at: float | None = None
        spent: Spent | None = None
        asked = f"{self._options.model} is asked: {self._options.ask}"
        print(asked, file=sys.stderr, flush=True)  # noqa: T201 - for the terminal
        question = [Turn("user", self._options.ask)]
        # Greedy: a small model's likeliest answer is right where a sampled one often is not.
        pieces = client.ask(
            self._options.model, question, max_tokens=ANSWER_TOKENS, temperature=0.0
        )
        try:
            with ExitStack() as shown:
                status: Status | None = None
                async with aclosing(pieces):
                    async for piece in pieces:
                        if isinstance(piece, Busy):
                            status = status or shown.enter_context(self._console.status(""))
                            status.update(piece.doing)
                        elif isinstance(piece, Spent):
                            spent = piece
                        elif isinstance(piece, Said):
                            shown.close()
                            first_at = first_at or time.monotonic()
                            print(piece.text, end="", flush=True)  # noqa: T201 - the answer
        finally:
            client.close()
        if first_at is None or spent is None:
            raise InternalError(f"cannot show an answer: {self._options.model} gave none")
        print(flush=True)  # noqa: T201 - ends the answer's line
        self._tell_speed(first_at - began_at, time.monotonic() - first_at, spent)

    def _tell_speed(self, waited_s: float, answered_s: float, spent: Spent) -> None:
        after_first = spent.completion_tokens - 1
        rate = f", then {after_first / answered_s:.0f} tokens/s" if after_first > 0 else ""
        self._console.print(
            f"[dim]{spent.prompt_tokens} + {spent.completion_tokens} tokens, the first after "
            f"{waited_s:.2f} s{rate}[/dim]"
        )

    async def _or_stop(self, work: Awaitable[Any], *, timeout_s: float | None = None) -> Any:
        """Await `work`, unless the user stops us or a daemon ends before."""
        doing: asyncio.Future[Any] = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stopping.wait())
        ends: set[asyncio.Future[Any]] = {doing, stop, *(one.exited for one in self._running)}
        try:
            done, _ = await asyncio.wait(
                ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if stop in done:
                raise Stopped
            for daemon in self._running:
                if daemon.exited.done():
                    raise DaemonEnded(_last_words(daemon))
            if doing not in done:
                raise Timeout(f"cannot start: not ready within {timeout_s:g} s; {self._logs()}")
            return doing.result()
        finally:
            stop.cancel()
            doing.cancel()
            await asyncio.wait({doing})

    def _logs(self) -> str:
        return f"the logs are in {self._folders.log('x').parent}"

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


def _last_words(daemon: Daemon) -> str:
    return (
        f"cannot go on: {daemon.name} {daemon.exited.result()}; the end of {daemon.log}:\n"
        f"{daemon.tail()}"
    )
