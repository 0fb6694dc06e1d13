"""Backends of an actor that say how much of its processor time is the step itself.

The bare step is one of the two calls into C++: the forward pass, to the logits. The other one, the
choice of tokens, is counted apart: with it, everything else that the actor does is overhead.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from bench.overhead.clocks import ThreadClock, own_threads
from neurond.actor.backend import OpenedDevice, ServedModel
from neurond.actor.cpu_backend import CpuBackend
from neurond.actor.formats import ModelFormats
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.sampling import SampleKernel
from neurond.protocol import Configure, LoadModel, ModelLoaded
from neurond.sources.prepared import read_manifest

COUNTS_FILE: Final = "CORTEX_BENCH_COUNTS"
"""Environment: the file in which an actor counts."""
PACE_MS: Final = "CORTEX_BENCH_PACE_MS"
"""Environment: how long a step of `PacedBackend` takes."""
METERED: Final = f"{__name__}:MeteredBackend"
PACED: Final = f"{__name__}:PacedBackend"
WORD: Final = 1000
"""A token that is text to every tokenizer."""
TIMED: Final = 4
"""One step of so many is timed, and its tokens stand for all: to read the clock of a thread that
runs on another core takes microseconds, which would be the actor's."""
_COUNTS = struct.Struct("<QQQQ")


class Counts(NamedTuple):
    """Of the steps since the actor began, or since an earlier count."""

    timed_ns: int
    """Processor time of the bare steps that were timed."""
    timed_sampling_ns: int
    """Of choosing their tokens."""
    timed_tokens: int
    tokens: int
    """Chosen in all steps."""

    @property
    def step_ns(self) -> int:
        """What all steps took, by what those that were timed took for a token; 0 where none was."""
        return self._of_all(self.timed_ns)

    @property
    def sampling_ns(self) -> int:
        """What choosing all tokens took, in the same way."""
        return self._of_all(self.timed_sampling_ns)

    def _of_all(self, timed_ns: int) -> int:
        return timed_ns * self.tokens // self.timed_tokens if self.timed_tokens else 0

    def since(self, before: "Counts") -> "Counts":
        """Return what was counted after `before`."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


class StepCounter:
    """Counts in a file that another process reads while it goes on. One writer."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if it is not there."""
        with path.open("a+b") as file:
            file.truncate(_COUNTS.size)
            self._memory = mmap.mmap(file.fileno(), _COUNTS.size)
        self.clock = ThreadClock()
        self._steps = 0
        self._counts = Counts(0, 0, 0, 0)

    @classmethod
    def from_environment(cls) -> Self:
        return cls(Path(os.environ[COUNTS_FILE]))

    def read(self) -> Counts:
        return Counts(*_COUNTS.unpack_from(self._memory))

    def begin(self) -> int | None:
        """Return the clock before a part of a step; None where it is not timed."""
        return None if self._steps % TIMED else self.clock.read_ns()

    def stepped(self, began_ns: int | None) -> None:
        """Count a forward pass that `begin` gave a clock for."""
        if began_ns is not None:
            self._add(Counts(self.clock.read_ns() - began_ns, 0, 0, 0))

    def sampled(self, began_ns: int | None, tokens: int) -> None:
        """Count the choice of so many tokens, with which a step ends, in the same way."""
        if began_ns is None:
            self._add(Counts(0, 0, 0, tokens))
        else:
            self._add(Counts(0, self.clock.read_ns() - began_ns, tokens, tokens))
        self._steps += tokens > 0

    def _add(self, more: Counts) -> None:
        self._counts = Counts(*map(sum, zip(self._counts, more, strict=True)))
        _COUNTS.pack_into(self._memory, 0, *self._counts)


class MeteredBackend(CpuBackend):
    """The CPU's own, with its kernels counted."""

    def open(self, configure: Configure) -> OpenedDevice:
        """See `Backend.open`."""
        opened = super().open(configure)
        if isinstance(self._kernels, Kernels):
            self._kernels = _MeteredKernels(self._kernels, StepCounter.from_environment())
        return opened


class _MeteredKernels(Kernels):
    def __init__(self, kernels: Kernels, counter: StepCounter) -> None:
        self.__dict__ |= vars(kernels)
        self._counter = counter

    def pool(self, threads: int) -> Pool:
        before = own_threads()
        made = super().pool(threads)
        self._counter.clock.watch(own_threads() - before)
        return made

    def sampler(self, pool: Pool, vocab_size: int) -> SampleKernel:
        return _MeteredSampler(super().sampler(pool, vocab_size), self._counter)

    def step(self, *args: Any, **options: Any) -> None:
        began_ns = self._counter.begin()
        super().step(*args, **options)
        self._counter.stepped(began_ns)


class _MeteredSampler(SampleKernel):
    def __init__(self, sampler: SampleKernel, counter: StepCounter) -> None:
        self.__dict__ |= vars(sampler)
        self._counter = counter

    def __call__(self, logits: int, rows: Any) -> Any:
        began_ns = self._counter.begin()
        sampled = super().__call__(logits, rows)
        self._counter.sampled(began_ns, len(rows.packed))
        return sampled


class PacedBackend:
    """No model: a step sleeps for a while and chooses the same word for every row.

    All processor time is overhead then, and none of it the noise of real steps.
    """

    def open(self, _configure: Configure) -> OpenedDevice:
        """See `Backend.open`."""
        return OpenedDevice("paced", 1 << 34, 1 << 34)

    def load(self, command: LoadModel, on_progress: Callable[[float], None]) -> ServedModel:
        """See `Backend.load`."""
        on_progress(1.0)
        config = SchedulerConfig(
            num_blocks=command.max_sequences * command.context_tokens // command.block_tokens,
            context_tokens=command.context_tokens,
            block_tokens=command.block_tokens,
            max_sequences=command.max_sequences,
        )
        runner = _PacedRunner(StepCounter.from_environment(), float(os.environ[PACE_MS]) / 1000)
        loaded = ModelLoaded(
            model_id=command.model_id,
            weights_id="paced",
            weights_bytes=1,
            kv_cache_bytes=1,
            num_blocks=config.num_blocks,
            context_tokens=config.context_tokens,
            dtype=command.dtype,
            kernels="none",
        )
        folder = Path(command.model_dir)
        manifest = read_manifest(folder)
        formats = ModelFormats(folder, manifest.vocab_size, manifest.eos_token_ids)
        return ServedModel(loaded, lambda: Engine(runner, config), lambda: None, formats)

    def describe(self, error: Exception) -> Any:
        """See `Backend.describe`."""
        raise error

    def is_poisoned(self, _error: Exception) -> bool:
        """See `Backend.is_poisoned`."""
        return True


class _PacedRunner:
    def __init__(self, counter: StepCounter, step_s: float) -> None:
        self._counter = counter
        self._step_s = step_s
        self._token = SampledToken(WORD)

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken]:
        time.sleep(self._step_s)
        self._counter.sampled(None, len(batch.rows))
        return [self._token] * len(batch.rows)
