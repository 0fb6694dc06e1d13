"""`python -m bench.overhead.alone DTYPE THREADS TOKENS STREAMS…`: the engine with nobody around it.

Prints a line of JSON for each number of streams: what a token takes of processor time in the bare
step, in the choice of tokens and in all, and of wall time, in nanoseconds.
"""

import json
import os
import sys
import time
from pathlib import Path

from bench.overhead.meter import COUNTS_FILE, MeteredBackend, StepCounter
from bench.overhead.processes import CONTEXT_TOKENS, KV_CACHE_MB
from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.devices import CPU
from neurond.engine.engine import Engine, EngineRequest
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.protocol import Configure, LoadModel
from tests.fakes.model_cache import SMOLLM2, cached_model

PROMPT_TOKENS = 32
VOCABULARY = 49_000
WARM_STEPS = 4


def decoding(engine: Engine, streams: int) -> None:
    """Bring so many sequences past their prompts."""
    sampling = SamplingParams(temperature=0.0, ignore_eos=True)
    for stream in range(streams):
        prompt = [(stream * 7919 + at * 104_729) % VOCABULARY for at in range(PROMPT_TOKENS)]
        request_id = RequestId(f"r{stream}")
        engine.add(EngineRequest(request_id, stream, prompt, sampling, CONTEXT_TOKENS, seed=1))
    while len(engine.step().tokens) < streams:
        pass


def measured(engine: Engine, counter: StepCounter, streams: int, tokens: int) -> dict[str, float]:
    """Decode so many tokens of each stream and return what one took."""
    decoding(engine, streams)
    for _ in range(WARM_STEPS):
        engine.step()
    before, wall_ns, all_ns = counter.read(), time.perf_counter_ns(), time.process_time_ns()
    for _ in range(tokens):
        engine.step()
    made = counter.read().since(before)
    for stream in range(streams):
        engine.cancel(RequestId(f"r{stream}"))
    return {
        "streams": streams,
        "step_ns": made.step_ns / made.tokens,
        "sampling_ns": made.sampling_ns / made.tokens,
        "all_ns": (time.process_time_ns() - all_ns) / made.tokens,
        "wall_ns": (time.perf_counter_ns() - wall_ns) / made.tokens,
    }


def main(dtype: str, threads: str, tokens: str, *streams: str) -> None:
    numbers = [int(number) for number in streams]
    backend = MeteredBackend()
    backend.open(Configure(CPU, int(threads)))
    command = LoadModel(
        SMOLLM2,
        str(cached_model(SMOLLM2)),
        dtype=dtype,  # type: ignore[arg-type]  # checked by the command line of the benchmark
        context_tokens=CONTEXT_TOKENS,
        max_sequences=max(numbers),
        kv_cache_bytes=KV_CACHE_MB << 20,
        block_tokens=BLOCK_TOKENS,
        speculation="off",
    )
    new_engine = backend.load(command, lambda _: None).new_engine
    assert new_engine is not None, "it generates"
    counter = StepCounter(Path(os.environ[COUNTS_FILE]))
    for number in numbers:
        print(json.dumps(measured(new_engine(), counter, number, int(tokens))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
