"""What n-gram speculation is worth on one stream: SmolLM2 on the CPU kernels, with and without.

    python -m bench.speculation [int4|int8] [ROUNDS]

Both engines answer the same prompts in turn, so that neighbours of a shared machine disturb both
alike; the fastest of all rounds counts, by the clock and in processor time, which neighbours
disturb less. A ratio is tokens a second with speculation over without.
"""

import os
import sys
import time

import msgspec

from bench.serve.texts import LICENSE, passage_twice
from cortex_core.canonical import SamplingParams
from cortex_core.ids import DeviceName, RequestId
from cortex_core.neuron_api import Dtype
from neurond.actor.cpu_backend import CpuBackend
from neurond.engine.engine import Engine, EngineRequest
from neurond.protocol import Configure, LoadModel
from neurond.sources.prepared import read_manifest
from neurond.text.tokenizer import ModelTokenizer
from tests.fakes.model_cache import SMOLLM2, cached_model

CODE = '''def read_settings(path, defaults):
    """Return what a file says, over the defaults."""
    settings = dict(defaults)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            name, found, value = line.partition("=")
            if not found:
                raise ValueError(f"{path}:{number}: expected NAME=VALUE, got {line!r}")
            settings[name.strip()] = value.strip()
    return settings
'''


def rendered(*turns: tuple[str, str]) -> str:
    """Return a conversation in the model's own form, its last turn open."""
    return "<|im_end|>\n".join(f"<|im_start|>{role}\n{words}" for role, words in turns)


TASKS = {
    "again": passage_twice(LICENSE.read_text(encoding="utf-8").split()[1200:])[0],
    "copy": rendered(
        ("user", f"Repeat this code exactly, and nothing else:\n```python\n{CODE}```"),
        ("assistant", "```python\n"),
    ),
    "prose": rendered(
        ("user", "Tell me a story about a lighthouse keeper who finds a letter."),
        ("assistant", ""),
    ),
}
"""Prompts: a passage that stands twice and begins again, code to be copied by request, a story."""
MAX_TOKENS = 128
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0, ignore_eos=True),
    "sampled": SamplingParams(temperature=0.8, top_p=0.95, ignore_eos=True),
}


def answer(
    engine: Engine, number: int, prompt: list[int], sampling: SamplingParams
) -> tuple[list[int], float, float]:
    """Return an answer's tokens, and the time and processor time from first to last, in seconds."""
    request_id = RequestId(f"r{number}")
    engine.add(EngineRequest(request_id, number, prompt, sampling, MAX_TOKENS, seed=7))
    tokens: list[int] = []
    began = 0.0, 0.0
    while engine.has_work():
        chosen = [token.token_id for _, token, _ in engine.step().tokens]
        began = began if tokens else (time.perf_counter(), time.process_time())
        tokens += chosen
    return tokens, time.perf_counter() - began[0], time.process_time() - began[1]


def main(dtype: str = "int4", rounds: str = "5") -> None:
    folder = cached_model(SMOLLM2)
    tokenizer = ModelTokenizer.read(folder, read_manifest(folder))
    backend = CpuBackend()
    backend.open(Configure(DeviceName("cpu"), len(os.sched_getaffinity(0))))
    plain = LoadModel(
        model_id=SMOLLM2,
        model_dir=str(folder),
        dtype=msgspec.convert(dtype, Dtype),
        context_tokens=1024,
        max_sequences=1,
        kv_cache_bytes=1 << 27,
        block_tokens=16,
        speculation="off",
    )
    commands = {
        "off": plain,
        "ngram": msgspec.structs.replace(plain, speculation="ngram"),
    }
    engines = {}
    for name, command in commands.items():
        new_engine = backend.load(command, lambda _: None).new_engine
        assert new_engine is not None, "it generates"
        engines[name] = new_engine()
    for task, text in TASKS.items():
        prompt = tokenizer.encode_rendered(text)
        for name, sampling in SAMPLINGS.items():
            print(f"{task:6} {name:8} {compared(engines, prompt, sampling, int(rounds))}")


def compared(
    engines: dict[str, Engine], prompt: list[int], sampling: SamplingParams, rounds: int
) -> str:
    """Return a line about answers to one prompt."""
    wall = dict.fromkeys(engines, float("inf"))
    spent = dict(wall)
    said: dict[str, list[int]] = {}
    scheduler = engines["ngram"].scheduler
    before = scheduler.num_drafted_tokens, scheduler.num_accepted_tokens
    for number in range(rounds):
        for speculation, engine in engines.items():
            tokens, wall_s, spent_s = answer(engine, number, prompt, sampling)
            said[speculation] = tokens
            wall[speculation] = min(wall[speculation], wall_s)
            spent[speculation] = min(spent[speculation], spent_s)
    assert said["off"] == said["ngram"], "speculation changed the text"
    drafted = (scheduler.num_drafted_tokens - before[0]) // rounds
    accepted = (scheduler.num_accepted_tokens - before[1]) // rounds
    return (
        f"off {(MAX_TOKENS - 1) / wall['off']:6.1f} tok/s, ngram "
        f"{(MAX_TOKENS - 1) / wall['ngram']:6.1f} tok/s, ratio {wall['off'] / wall['ngram']:.2f}, "
        f"of processor time {spent['off'] / spent['ngram']:.2f}; of {MAX_TOKENS} tokens "
        f"{accepted} accepted, {drafted} drafted"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
