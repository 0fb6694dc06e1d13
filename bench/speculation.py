"""What n-gram speculation is worth on one stream: SmolLM2 on the CPU kernels, with and without.

    python -m bench.speculation [int4|int8|bfloat16] [--rounds N] [--write]

Both engines answer the same prompts in turn, so that neighbours of a shared machine disturb both
alike; medians count, by the clock and in processor time, which neighbours disturb less. A ratio is
tokens a second with speculation over without. A star where other processes took more of the
machine than a run may have to count. --write puts the table into docs/benchmarks.md.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.circumstances import circumstances
from bench.host_engine import engine_of, rested
from bench.markdown import table, write_section
from bench.named import positive
from bench.serve.machine import FOREIGN_CORES_LIMIT, CpuMeter, CpuUse
from bench.serve.texts import LICENSE, passage_twice
from cortex_core.canonical import ChatPrompt, ResponseFormat, SamplingParams, Tool, ToolChoice
from cortex_core.ids import DeviceName, RequestId
from cortex_core.neuron_api import Dtype
from neurond.actor.cpu_backend import CpuBackend
from neurond.engine.engine import Engine, EngineRequest
from neurond.engine.grammar import GrammarCompiler, TokenGrammar
from neurond.protocol import Configure, LoadModel
from neurond.sources.prepared import read_manifest
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
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


TOOL = Tool(
    "write",
    None,
    {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
)
CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "country": {"type": "string", "maxLength": 30},
        "population": {"type": "integer"},
        "is_capital": {"type": "boolean"},
    },
    "required": ["name", "country", "population", "is_capital"],
    "additionalProperties": False,
}


def rendered(*turns: tuple[str, str]) -> str:
    """Return a conversation in the model's own form, its last turn open."""
    return "<|im_end|>\n".join(f"<|im_start|>{role}\n{words}" for role, words in turns)


def call() -> str:
    """Return a call of `TOOL` in the model's own form."""
    told = {"name": TOOL.name, "arguments": {"path": "settings.py", "content": CODE}}
    return f"<tool_call>\n{json.dumps(told)}\n</tool_call>"


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
    "call": rendered(
        ("user", "Write settings.py."),
        ("assistant", call()),
        ("user", "Write the same file again, with the same content, by a call of the tool write."),
        ("assistant", ""),
    ),
    "record": rendered(("user", "Tell me of five cities as JSON."), ("assistant", "")),
}
"""Prompts: a passage that stands twice and begins again, code to be copied by request, a story,
code to be copied into the arguments of a call, and a few cities.
"""
REQUIRED = ToolChoice("required")
RECORD = ResponseFormat("json_schema", schema={"type": "array", "items": CITY, "minItems": 5})
MAX_TOKENS = 128
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0, ignore_eos=True),
    "sampled": SamplingParams(temperature=0.8, top_p=0.95, ignore_eos=True),
}


PAGE: Final = Path("docs/benchmarks.md")
SECTION: Final = "speculation"
HEADS: Final = (
    "task, sampling",
    "without, tokens/s",
    "with, tokens/s",
    "ratio",
    "of processor time",
    "tokens",
    "drafted",
    "accepted",
)


@dataclass(frozen=True)
class Answer:
    """One answer; times are from its first token to its last."""

    tokens: Sequence[int]
    wall_s: float
    spent_s: float


@dataclass(frozen=True)
class Outcome:
    """Answers to one prompt by the engine without and the one with drafts, and its drafts."""

    off: Sequence[Answer]
    ngram: Sequence[Answer]
    drafted: int
    accepted: int
    used: CpuUse
    """By whom the machine was while they were made."""

    def row(self, name: str) -> list[str]:
        """Return the row of that name, see `HEADS`, with a star where it does not count."""
        kinds = self.off, self.ngram
        walls = [[each.wall_s for each in kind] for kind in kinds]
        spent = [[each.spent_s for each in kind] for kind in kinds]
        return [
            name if self.used.is_clean else f"{name}\\*",
            *(_rates(each) for each in kinds),
            *(f"{median(off) / median(ngram):.2f}" for off, ngram in (walls, spent)),
            str(len(self.off[0].tokens)),
            str(self.drafted),
            str(self.accepted),
        ]


def _rates(answers: Sequence[Answer]) -> str:
    rates = [(len(each.tokens) - 1) / each.wall_s for each in answers]
    low, middle, high = (f"{rate:.0f}" for rate in (min(rates), median(rates), max(rates)))
    return f"{middle} ({low} to {high})"


def main() -> int:
    """Measure, print the table, and write it where that is asked for."""
    options = _arguments()
    folder = cached_model(SMOLLM2)
    tokenizer = ModelTokenizer.read(folder, read_manifest(folder))
    grammars = _grammars(folder, tokenizer)
    engines = _engines(options.dtype)
    outcomes = {}
    for task, text in TASKS.items():
        prompt = tokenizer.encode_rendered(text)
        for name, sampling in SAMPLINGS.items():
            outcome = compared(engines, prompt, sampling, options.rounds, grammars.get(task))
            outcomes[f"{task}, {name}"] = outcome
            print(outcome.row(f"{task}, {name}"), file=sys.stderr)
    text = told(outcomes)
    print(text)
    if options.write:
        write_section(PAGE, SECTION, f"{_circumstances(options)}\n\n{text}")
    return 0


def told(outcomes: Mapping[str, Outcome]) -> str:
    """Return the table, and below it why rows do not count."""
    rows = [outcome.row(name) for name, outcome in outcomes.items()]
    stars = [
        f"- {name}: other processes took {outcome.used.foreign_cores:.2f} core"
        for name, outcome in outcomes.items()
        if not outcome.used.is_clean
    ]
    return "\n\n".join([table(HEADS, rows), *(["\n".join(stars)] if stars else [])])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.speculation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dtype", nargs="?", choices=["int4", "int8", "bfloat16"], default="int4")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE}")
    return parser.parse_args()


def _circumstances(options: argparse.Namespace) -> str:
    command = f"python -m bench.speculation {options.dtype} --rounds {options.rounds} --write"
    told = (
        f"{SMOLLM2} in {options.dtype}, one stream, medians of {options.rounds} rounds in which "
        "both engines take turns, lowest to highest in brackets; a star where other processes took "
        f"more than {FOREIGN_CORES_LIMIT} core"
    )
    return circumstances(command, told)


def _engines(dtype: Dtype) -> dict[str, Engine]:
    """Return an engine for each kind of speculation."""
    backend = CpuBackend()
    backend.open(Configure(DeviceName("cpu"), len(os.sched_getaffinity(0))))
    plain = LoadModel(
        model_id=SMOLLM2,
        model_dir=str(cached_model(SMOLLM2)),
        dtype=dtype,
        context_tokens=1024,
        max_sequences=1,
        kv_cache_bytes=1 << 27,
        block_tokens=16,
        speculation="off",
    )
    drafting = msgspec.structs.replace(plain, speculation="ngram")
    return {
        name: engine_of(rested(backend.load(command, lambda _: None)))
        for name, command in (("off", plain), ("ngram", drafting))
    }


def _grammars(folder: Path, tokenizer: ModelTokenizer) -> dict[str, TokenGrammar]:
    """Return what the answers to some of the tasks are held to."""
    manifest = read_manifest(folder)
    compiler = GrammarCompiler(folder, manifest.vocab_size, manifest.eos_token_ids)
    answers = AnswerFormat(Parsers("hermes", "none"), tokenizer.pieces)
    called = answers.held_calls(ChatPrompt((), tools=(TOOL,), tool_choice=REQUIRED), [])
    assert called is not None
    forms = {"call": ResponseFormat("grammar", text=called.grammar), "record": RECORD}
    return {
        task: compiler.compile(msgspec.json.encode(form), ends=()) for task, form in forms.items()
    }


def compared(
    engines: Mapping[str, Engine],
    prompt: list[int],
    sampling: SamplingParams,
    rounds: int,
    grammar: TokenGrammar | None = None,
) -> Outcome:
    """Let both engines answer one prompt in turn; a round before those that count warms them up."""
    answers: dict[str, list[Answer]] = {name: [] for name in engines}
    for engine in engines.values():
        answer(engine, 0, prompt, sampling, grammar)
    scheduler = engines["ngram"].scheduler
    before = scheduler.num_drafted_tokens, scheduler.num_accepted_tokens
    meter = CpuMeter([])
    for number in range(rounds):
        for name, engine in engines.items():
            answers[name].append(answer(engine, 1 + number, prompt, sampling, grammar))
    used = meter.stop()
    if len({tuple(each.tokens) for kind in answers.values() for each in kind}) != 1:
        sys.exit("cannot compare: speculation changed the text")
    return Outcome(
        **answers,
        drafted=(scheduler.num_drafted_tokens - before[0]) // rounds,
        accepted=(scheduler.num_accepted_tokens - before[1]) // rounds,
        used=used,
    )


def answer(
    engine: Engine,
    number: int,
    prompt: list[int],
    sampling: SamplingParams,
    grammar: TokenGrammar | None = None,
) -> Answer:
    """Let an engine answer, held to a fork of `grammar`."""
    request = EngineRequest(
        RequestId(f"r{number}"),
        number,
        prompt,
        sampling,
        MAX_TOKENS,
        seed=7,
        grammar=None if grammar is None else grammar.fork(),
    )
    engine.add(request)
    tokens: list[int] = []
    began = 0.0, 0.0
    while engine.has_work():
        chosen = [token.token_id for _, token, _ in engine.step().tokens]
        began = began if tokens else (time.perf_counter(), time.process_time())
        tokens += chosen
    return Answer(tokens, time.perf_counter() - began[0], time.process_time() - began[1])


if __name__ == "__main__":
    sys.exit(main())
