"""A real model served on the CPU kernels with all of the machine's threads, without a process."""

import os
from itertools import count

from cortex_core.canonical import SamplingParams
from cortex_core.ids import ModelId, RequestId
from cortex_core.neuron_api import Dtype, KvDtype
from neurond.actor.backend import ServedModel
from neurond.actor.cpu_backend import CpuBackend
from neurond.devices import CPU
from neurond.engine.engine import Engine, EngineRequest
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.protocol import Configure, LoadModel
from tests.fakes.model_cache import cached_model

VOCAB_SIZE = 49_000
_numbers = count()


def serve(
    model_id: ModelId,
    dtype: Dtype,
    *,
    context_tokens: int,
    max_sequences: int,
    kv_cache_bytes: int,
    kv_dtype: KvDtype = "bfloat16",
) -> ServedModel:
    """Load a model, fetching it if it is not there; without drafts a step is a token of each."""
    backend = CpuBackend()
    backend.open(Configure(CPU, len(os.sched_getaffinity(0))))
    command = LoadModel(
        model_id,
        str(cached_model(model_id)),
        dtype=dtype,
        kv_dtype=kv_dtype,
        context_tokens=context_tokens,
        max_sequences=max_sequences,
        kv_cache_bytes=kv_cache_bytes,
        block_tokens=BLOCK_TOKENS,
        speculation="off",
    )
    return rested(backend.load(command, lambda _: None))


def rested(serving: ServedModel) -> ServedModel:
    """Return a model with its memory as an actor has it that was idle for a while."""
    assert serving.make_resident is not None, "the CPU kernels serve it"
    while serving.make_resident(0):
        pass
    return serving


def engine_of(serving: ServedModel) -> Engine:
    assert serving.new_engine is not None, "it generates"
    return serving.new_engine()


def add(engine: Engine, num_prompt_tokens: int, max_tokens: int) -> None:
    """Add a greedy request whose prompt is like no other."""
    number = next(_numbers)
    prompt = [(number * 7919 + place * 104_729) % VOCAB_SIZE for place in range(num_prompt_tokens)]
    sampling = SamplingParams(temperature=0.0, ignore_eos=True)
    request_id = RequestId(f"bench-{number}")
    engine.add(EngineRequest(request_id, number, prompt, sampling, max_tokens, seed=1))
