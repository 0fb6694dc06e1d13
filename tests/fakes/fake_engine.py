"""An actor backend without torch: the real engine over a runner that counts.

The token after `t` is `t + 1`; the end-of-sequence token is 0, which counting never reaches. It
goes as fast as it is asked. Some prompts misbehave, by their last token:

`HANG` blocks the step for ever, `CRASH` ends the process, `BROKEN` raises what a shape error
raises, `NAN` fails its own row, `EXHAUSTED` is out of memory, `POISON` makes the device unusable.
A model folder whose name begins with `slow` loads when a file `go` appears in it; `bad` fails to
load; `fatal` takes the process down while loading.

A format of kind `regex` is a number of tokens, after which the answer is complete; or `slow N`,
which compiles when a file `go` appears in the model's folder, `bad`, which is refused, or `broken`.

A model folder whose name begins with `fresh` has memory to make resident without end. A file
`frontier` there says which block was the first fresh one when it was last asked to.

Where it begins with `costly` each token takes `TOKEN_S`. A file `chunks` there has a line for each
step with tokens of prompts: how many.

A model folder whose name begins with `vectors` gives embeddings besides: the numbers of an input's
vector are its first token and how many it has. There `HANG` and `BROKEN` count as the first token.
"""

import os
import signal
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from cortex_core.canonical import ResponseFormat
from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    ErrorInfo,
    InternalError,
    InvalidRequest,
    ModelLoadFailed,
    OutOfMemory,
)
from cortex_core.ipc.bell import Bell
from cortex_core.neuron_api import EmbeddingSizes
from neurond.actor.backend import LoadProgressCallback, OpenedDevice, ServedModel
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.config import SchedulerConfig
from neurond.engine.embedding import EmbedInput
from neurond.engine.engine import Engine
from neurond.protocol import Configure, LoadModel, ModelLoaded
from tests.fakes.counting_grammar import Countdown

HANG, CRASH, BROKEN, NAN, EXHAUSTED, POISON = 900_001, 900_002, 900_003, 900_004, 900_005, 900_006
UNTOLD_STEPS = 4
PACE_S = 0.001
TOKEN_S = 0.001
VOCABULARY = 1_000_000
NUM_BLOCKS = 256


class PoisonedError(RuntimeError):
    """What a broken device raises."""


class CountingRunner:
    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        return [self._next(row.token_ids[-1], row.sampling.logprobs) for row in batch.rows]

    def _next(self, token_id: int, logprobs: int | None) -> SampledToken | ErrorInfo:
        if token_id == HANG:
            threading.Event().wait()
        if token_id == CRASH:
            os._exit(13)
        if token_id == BROKEN:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        if token_id == NAN:
            return ErrorInfo("internal_error", "cannot sample: logits are not finite")
        if token_id == EXHAUSTED:
            raise OutOfMemory("cannot compute the step: out of memory")
        if token_id == POISON:
            raise PoisonedError("device-side assert triggered")
        chosen = token_id + 1
        if logprobs is None:
            return SampledToken(chosen)
        return SampledToken(chosen, -0.5, tuple((chosen + i, -0.5 - i) for i in range(logprobs)))


class CostlyRunner(CountingRunner):
    def __init__(self, folder: Path) -> None:
        self._chunks = folder / "chunks"

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        num_tokens = batch.num_tokens - batch.num_decodes
        time.sleep(batch.num_tokens * TOKEN_S)
        if num_tokens:
            with self._chunks.open("a") as file:
                file.write(f"{num_tokens}\n")
        return super().execute(batch)


class CountingFormats:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def compile(
        self, response_format: bytes, *, ends: Iterable[int], replayed: Sequence[int]
    ) -> Countdown | None:
        text = msgspec.json.decode(response_format, type=ResponseFormat).text or ""
        kind, _, number = text.rpartition(" ")
        if kind == "slow":
            _wait_for(self._folder / "go")
        if number == "bad":
            raise InvalidRequest("cannot hold the answer to it: it is bad", param="response_format")
        if number == "broken":
            raise RuntimeError("thread panicked")
        if number == "none":
            return None
        return Countdown(int(number) - len(replayed))


class CountingEmbedder:
    dimensions = 2

    def embed(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        if any(each.token_ids[0] == HANG for each in inputs):
            threading.Event().wait()
        if any(each.token_ids[0] == BROKEN for each in inputs):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return [struct.pack("<2f", each.token_ids[0], len(each.token_ids)) for each in inputs]


class _Endless:
    def __init__(self, told: Path) -> None:
        self._told = told
        self._next = told.with_suffix(".next")

    def __call__(self, frontier: int) -> bool:
        self._next.write_text(str(frontier))
        self._next.replace(self._told)
        return True


class _Steps:
    def __init__(self, told: Path) -> None:
        self._told = told
        self._num_steps = 0

    def __call__(self, took_s: float) -> None:
        self._num_steps += 1
        self._told.write_text(str(self._num_steps))


class CountingBackend:
    def open(self, configure: Configure) -> OpenedDevice:
        return OpenedDevice("counting", 1 << 30, 1 << 30)

    def load(self, command: LoadModel, on_progress: LoadProgressCallback) -> ServedModel:
        folder = Path(command.model_dir)
        on_progress(0.25)
        if folder.name.startswith("slow"):
            _wait_for(folder / "go")
        if folder.name.startswith("bad"):
            raise ModelLoadFailed(f"cannot load {command.model_id}: the file is truncated")
        if folder.name.startswith("lost"):
            raise DeviceFailed("cannot go on with cpu: it fell off the bus")
        if folder.name.startswith("fatal"):
            os._exit(14)
        config = SchedulerConfig(
            num_blocks=NUM_BLOCKS,
            context_tokens=command.context_tokens,
            block_tokens=command.block_tokens,
            max_sequences=command.max_sequences,
        )
        loaded = ModelLoaded(
            model_id=command.model_id,
            weights_id="counting",
            weights_bytes=1 << 20,
            kv_cache_bytes=command.kv_cache_bytes,
            num_blocks=NUM_BLOCKS,
            context_tokens=command.context_tokens,
            dtype=command.dtype,
            kv_dtype=command.kv_dtype or command.dtype,
            kernels="torch",
        )
        formats = CountingFormats(folder)
        is_costly = folder.name.startswith("costly")
        runner = CostlyRunner(folder) if is_costly else CountingRunner()
        served = ServedModel(loaded, lambda: Engine(runner, config), lambda: None, formats)
        if "fresh" in folder.name:
            make_resident = _Endless(folder / "frontier")
            served = replace(served, make_resident=make_resident, stepped=_Steps(folder / "steps"))
        if not folder.name.startswith("vectors"):
            return served
        sizes = EmbeddingSizes(CountingEmbedder.dimensions, command.context_tokens)
        loaded = msgspec.structs.replace(loaded, embedding=sizes)
        return replace(served, loaded=loaded, embedder=CountingEmbedder())

    def describe(self, error: Exception) -> CortexError:
        return InternalError(f"cannot compute the step: {error}")

    def is_poisoned(self, error: Exception) -> bool:
        return isinstance(error, PoisonedError)


class TellingBackend(CountingBackend):
    """Tells what its process may see of CUDA, in the place of an attention backend's name."""

    def open(self, configure: Configure) -> OpenedDevice:
        names = ("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")
        told = " ".join(repr(os.environ.get(name)) for name in names)
        return OpenedDevice(told, 1 << 30, 1 << 30)


class PacedBackend(CountingBackend):
    """Takes `PACE_S` for each step, so that an answer lasts longer than a message is on its way."""

    def open(self, configure: Configure) -> OpenedDevice:
        execute, embed = CountingRunner.execute, CountingEmbedder.embed

        def slowly(runner: CountingRunner, batch: ScheduledBatch) -> object:
            time.sleep(PACE_S)
            return execute(runner, batch)

        def embed_slowly(embedder: CountingEmbedder, inputs: Sequence[EmbedInput]) -> object:
            time.sleep(PACE_S)
            return embed(embedder, inputs)

        CountingRunner.execute, CountingEmbedder.embed = slowly, embed_slowly
        return super().open(configure)


class DyingBackend(CountingBackend):
    """Its actor is killed when `UNTOLD_STEPS` are on the ring, before it tells of the last one."""

    def open(self, configure: Configure) -> OpenedDevice:
        steps = 0
        execute, ring = CountingRunner.execute, Bell.ring

        def counted(runner: CountingRunner, batch: ScheduledBatch) -> object:
            nonlocal steps
            steps += 1
            return execute(runner, batch)

        def deadly(bell: Bell) -> None:
            if steps == UNTOLD_STEPS:
                os.kill(os.getpid(), signal.SIGKILL)
            ring(bell)

        CountingRunner.execute, Bell.ring = counted, deadly
        return super().open(configure)


def _wait_for(path: Path) -> None:
    pause = threading.Event()
    while not path.exists():
        pause.wait(0.01)
