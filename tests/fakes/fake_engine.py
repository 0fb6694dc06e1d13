"""An actor backend without torch: the real engine over a runner that counts.

The token after `t` is `t + 1`; the end-of-sequence token is 0, which counting never reaches. It
goes as fast as it is asked. Some prompts misbehave, by their last token:

`HANG` blocks the step for ever, `CRASH` ends the process, `BROKEN` raises what a shape error
raises, `NAN` fails its own row, `EXHAUSTED` is out of memory, `POISON` makes the device unusable.
A model folder whose name begins with `slow` loads when a file `go` appears in it; `bad` fails to
load; `fatal` takes the process down while loading.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from cortex_core.errors import CortexError, ErrorInfo, InternalError, ModelLoadFailed, OutOfMemory
from neurond.actor.backend import LoadProgressCallback, OpenedDevice, ServedModel
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine
from neurond.protocol import Configure, LoadModel, ModelLoaded

HANG, CRASH, BROKEN, NAN, EXHAUSTED, POISON = 900_001, 900_002, 900_003, 900_004, 900_005, 900_006
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
            kernels="torch",
        )
        return ServedModel(loaded, lambda: Engine(CountingRunner(), config), lambda: None)

    def describe(self, error: Exception) -> CortexError:
        return InternalError(f"cannot compute the step: {error}")

    def is_poisoned(self, error: Exception) -> bool:
        return isinstance(error, PoisonedError)


def _wait_for(path: Path) -> None:
    pause = threading.Event()
    while not path.exists():
        pause.wait(0.01)
