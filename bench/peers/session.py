"""Measures peers in turn: for each start that the workloads need, each peer in each of its formats.

What was measured or refused is a record at once; a session tries nothing twice.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Launch, Peer, Shape
from bench.peers.plan import Plan, limit_minutes, work_for
from bench.peers.report import reasons
from bench.peers.results import START, UNFINISHED, Key, Record, Results, file_name, now
from bench.peers.server import Server
from bench.peers.weights import Weights
from bench.serve.figures import Figures
from bench.serve.machine import CpuMeter, CpuUse, at_rest
from bench.serve.prompts import PromptMaker
from bench.serve.target import Target
from bench.serve.workloads import measure
from cortex_core.ids import ModelId

log = logging.getLogger(__name__)

TRIES: Final = 3
"""For a measurement that does not count, such as one beside somebody else's work."""
WARM_UP_TOKENS: Final = 8


@dataclass
class Session:
    """One run over peers, by `command` and `client`; `seed` makes its prompts."""

    cache: Cache
    results: Results
    repetitions: int
    seed: int
    command: str = ""
    client: str = ""
    _refused: dict[str, Unavailable] = field(default_factory=dict)
    _tried: set[Key] = field(default_factory=set)

    async def run(self, peers: Sequence[Peer], plan: Plan) -> None:
        """Measure what is not there yet; what cannot be had becomes a record that says why.

        Peers take turns at what needs one start, so that their figures are of about the same time.
        What was kept of an earlier run may get too old for the tables while others are measured:
        it is measured then, too. Cancelling stops the server that runs.
        """
        num_tried = -1
        while len(self._tried) > num_tried:
            num_tried = len(self._tried)
            await self._go_through(peers, plan)

    async def _go_through(self, peers: Sequence[Peer], plan: Plan) -> None:
        for (model, shape), names in plan.starts().items():
            for peer in peers:
                for weight_format in peer.formats_of(model):
                    if weight_format in plan.formats:
                        start = _Start(self, peer, model, weight_format, shape)
                        await self._run(start, work_for(weight_format, names))

    async def _run(self, start: "_Start", names: Sequence[str]) -> None:
        try:
            await start.run(names)
        except Unavailable as ex:
            log.warning("%s %s: %s", start.peer.name, start.weight_format, ex)
            start.refuse(names, str(ex))

    def prepare(self, peer: Peer) -> None:
        """Prepare a peer; one that cannot be had is not tried again in this run.

        Raises:
            Unavailable: it cannot be had.
        """
        if peer.name in self._refused:
            raise self._refused[peer.name]
        try:
            peer.prepare()
        except Unavailable as ex:
            self._refused[peer.name] = ex
            raise

    def missing(self, keys: Sequence[Key]) -> list[Key]:
        """Return what is to be measured and was not tried yet."""
        found = self.results.missing(keys, self.repetitions)
        return [key for key in found if key not in self._tried]

    def refuse(self, key: Key, reason: str) -> None:
        """Keep why there is nothing."""
        self._tried.add(key)
        self.results.add(Record(key, now(), unavailable=reason))

    def record(self, key: Key, figures: Figures) -> None:
        """Keep what was found."""
        self._tried.add(key)
        record = Record(key, now(), figures, command=self.command)
        self.results.add(record)
        found = [figures.get(UNFINISHED) or "done", *reasons(record)]
        log.info("%s %s: %s", key.server, key.workload, "; ".join(found))


@dataclass
class _Start:
    """One format of one model, served with room for `shape`."""

    session: Session
    peer: Peer
    model: ModelId
    weight_format: str
    shape: Shape

    def key(self, workload: str, entry: str = "") -> Key:
        peer, client = self.peer, self.session.client
        return Key(self.model, peer.name, peer.version, self.weight_format, workload, entry, client)

    def _missing(self, names: Sequence[str]) -> list[Key]:
        """Return what is to be measured."""
        wanted = [self.key(name, entry) for name in names for entry in self.peer.entries]
        return self.session.missing(wanted)

    def refuse(self, names: Sequence[str], reason: str) -> None:
        """Note that what is missing cannot be had."""
        for key in self._missing(names):
            self.session.refuse(key, reason)

    async def run(self, names: Sequence[str]) -> None:
        """Measure what is missing.

        Raises:
            Unavailable: the peer, its weights or the server cannot be had.
        """
        missing = self._missing(names)
        if not missing:
            return
        self.session.prepare(self.peer)
        weights = Weights(self.session.cache, self.model)
        wanted = [key for key in missing if key.workload != START]
        for key in missing:
            if key.workload == START:
                await self._time_start(weights, key)
        if not wanted:
            return
        prompts = PromptMaker(weights.tokenizer, self.session.seed)
        while wanted:
            wanted = await self._serve(self._launch(weights), wanted, prompts)

    async def _serve(self, launch: Launch, wanted: list[Key], prompts: PromptMaker) -> list[Key]:
        """Start a server and measure in turn; return what is left where one did not finish.

        Who stood still once is not asked for anything else: the rest gets a server of its own.

        Raises:
            Unavailable: the server cannot be had.
        """
        server = self._started(launch)
        try:
            await server.first_token()
            await server.settled()
            for number, key in enumerate(wanted, 1):
                target = server.target(launch.entry(key.entry), self.shape.context_tokens)
                if not await self._measure(key, target, prompts):
                    return wanted[number:]
        finally:
            await server.stop()
        return []

    def _launch(self, weights: Weights, *, fresh: bool = False) -> Launch:
        return self.peer.launch(weights, self.weight_format, self.shape, fresh=fresh)

    def _started(self, launch: Launch) -> Server:
        name = f"{self.peer.name}-{file_name(self.model)}-{self.weight_format}"
        return Server(launch, self.session.cache.log(name))

    async def _time_start(self, weights: Weights, key: Key) -> None:
        """Start what `key` names twice, first with nothing kept that makes the next start faster.

        What was timed before something fails is kept, and does not count.

        Raises:
            Unavailable: nothing was timed.
        """
        figures: Figures = {}
        failed = None
        meter = CpuMeter([])
        try:
            for name, fresh in (("start_first_s", True), ("start_again_s", False)):
                await self._time_one(weights, key.entry, name, figures, fresh=fresh)
        except Unavailable as ex:
            if not figures:
                raise
            failed = str(ex)
        used = meter.stop()  # the server's processes have ended: their work is ours by now
        figures |= {
            "first_error": failed,
            "foreign_cores": used.foreign_cores,
            "counts": failed is None and used.is_clean,
        }
        self.session.record(key, figures)

    async def _time_one(
        self, weights: Weights, entry: str, name: str, figures: Figures, *, fresh: bool
    ) -> None:
        launch = self._launch(weights, fresh=fresh)
        if launch.alone is not None and entry == self.peer.entries[0]:
            launch = launch.alone
        server = self._started(launch)
        try:
            figures[name] = await server.first_token()
            if not fresh and launch.reload is not None:
                await server.settled()
                figures["load_again_s"] = launch.reload()
        finally:
            await server.stop()

    async def _measure(self, key: Key, target: Target, prompts: PromptMaker) -> bool:
        """Return whether all runs came to their ends. One that does not is not tried again."""
        repetitions = self.session.repetitions
        minutes = limit_minutes(key.workload, repetitions)
        for _ in range(TRIES):
            log.info("%s %s: begins, %g min at most", key.server, key.workload, minutes)
            meter = CpuMeter(target.pids)
            try:
                async with asyncio.timeout(60 * minutes) as limit:
                    await target.complete(prompts.text(32), WARM_UP_TOKENS)
                    await at_rest(target.pids)
                    found = await measure(key.workload, target, prompts, repetitions)
            except TimeoutError:
                if not limit.expired():
                    raise
                self.session.record(key, _unfinished(minutes, repetitions, meter.stop()))
                return False
            self.session.record(key, found)
            if found["counts"]:
                break
        return True


def _unfinished(minutes: float, repetitions: int, used: CpuUse) -> Figures:
    """Return what is told of a run that was given up; it counts as others do."""
    return {
        UNFINISHED: f"did not finish in {minutes:g} min",
        "repetitions": repetitions,
        "foreign_cores": used.foreign_cores,
        "counts": used.is_clean,
    }
