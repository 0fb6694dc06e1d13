"""Measures one peer: each format of weights, each start that the workloads need, each workload."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Launch, Peer, Shape
from bench.peers.plan import USUAL, starts
from bench.peers.results import START, Key, Record, Results
from bench.peers.server import Server
from bench.peers.weights import Weights
from bench.serve.figures import Figures
from bench.serve.machine import CpuMeter
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
    """One run over all peers; `seed` makes its prompts."""

    cache: Cache
    results: Results
    repetitions: int
    seed: int
    _refused: dict[str, Unavailable] = field(default_factory=dict)

    async def run(self, peer: Peer, workloads: Sequence[str]) -> None:
        """Measure what is not there yet; what cannot be had becomes a record that says why."""
        for (model, shape), names in starts(workloads).items():
            for weight_format in peer.formats:
                one = _Start(self, peer, model, weight_format, shape)
                try:
                    await one.run(names)
                except Unavailable as ex:
                    log.warning("%s %s: %s", peer.name, weight_format, ex)
                    one.refuse(names, str(ex))

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

    def record(self, key: Key, figures: Figures) -> None:
        """Keep what was found."""
        self.results.add(Record(key, time.strftime("%Y-%m-%d %H:%M"), figures))
        log.info("%s %s: %s", key.server, key.workload, "counts" if figures["counts"] else "no")


@dataclass
class _Start:
    """One format of one model, served with room for `shape`."""

    session: Session
    peer: Peer
    model: ModelId
    weight_format: str
    shape: Shape

    def key(self, workload: str, entry: str = "") -> Key:
        version = self.peer.version
        return Key(self.model, self.peer.name, version, self.weight_format, workload, entry)

    @property
    def _start_key(self) -> Key:
        """A start is timed at the first entry."""
        return self.key(START, self.peer.entries[0])

    def refuse(self, names: Sequence[str], reason: str) -> None:
        """Note that it cannot be had."""
        now = time.strftime("%Y-%m-%d %H:%M")
        for name in names:
            self.session.results.add(Record(self.key(name), now, unavailable=reason))

    async def run(self, names: Sequence[str]) -> None:
        """Measure what is missing.

        Raises:
            Unavailable: the peer, its weights or the server cannot be had.
        """
        results = self.session.results
        wanted = [self.key(name, entry) for name in names for entry in self.peer.entries]
        wanted = [key for key in wanted if not results.has(key)]
        if not wanted:
            return
        self.session.prepare(self.peer)
        weights = Weights(self.session.cache, self.model)
        if self.shape == USUAL and not results.has(self._start_key):
            await self._time_start(weights)
        launch = self._launch(weights)
        prompts = PromptMaker(weights.tokenizer, self.session.seed)
        server = self._started(launch)
        try:
            await server.first_token()
            await server.settled()
            for key in wanted:
                target = server.target(launch.entry(key.entry), self.shape.context_tokens)
                await self._measure(key, target, prompts)
        finally:
            server.stop()

    def _launch(self, weights: Weights, *, fresh: bool = False) -> Launch:
        return self.peer.launch(weights, self.weight_format, self.shape, fresh=fresh)

    def _started(self, launch: Launch) -> Server:
        name = f"{self.peer.name}-{weights_name(self.model)}-{self.weight_format}"
        return Server(launch, self.session.cache.log(name))

    async def _time_start(self, weights: Weights) -> None:
        """Start it twice, the first time with nothing kept that makes the next start faster."""
        figures: Figures = {}
        meter = CpuMeter([])
        for name, fresh in (("start_first_s", True), ("start_again_s", False)):
            launch = self._launch(weights, fresh=fresh)
            launch = launch.alone or launch
            server = self._started(launch)
            try:
                figures[name] = await server.first_token()
                if not fresh and launch.reload is not None:
                    await server.settled()
                    figures["load_again_s"] = launch.reload()
            finally:
                server.stop()
        used = meter.stop()  # the server's processes have ended: their work is ours by now
        figures |= {"foreign_cores": used.foreign_cores, "counts": used.is_clean}
        self.session.record(self._start_key, figures)

    async def _measure(self, key: Key, target: Target, prompts: PromptMaker) -> None:
        for _ in range(TRIES):
            await target.complete(prompts.text(32), WARM_UP_TOKENS)
            found = await measure(key.workload, target, prompts, self.session.repetitions)
            self.session.record(key, found)
            if found["counts"]:
                return


def weights_name(model: ModelId) -> str:
    """Return the part of a model's id that can be in a file's name."""
    return model.rpartition(":")[2].replace("/", "-")
