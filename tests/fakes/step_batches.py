"""Steps of every kind, with rows that ask for everything a sampler can."""

from array import array
from collections import Counter

from cortex_core.canonical import SamplingParams
from neurond.engine.batch import Row, ScheduledBatch, TokenCounts
from tests.fakes.tiny_models import VOCAB_SIZE

PAGE = 256
SAMPLINGS = [
    SamplingParams(temperature=0.0),
    SamplingParams(top_k=5, top_p=0.9, min_p=0.01, logprobs=3),
    SamplingParams(repetition_penalty=1.2, presence_penalty=0.5, logit_bias={3: 1.0}, logprobs=0),
    SamplingParams(),
]


class Anything:
    """A grammar that allows every token."""

    def allowed(self) -> array:
        return array("I", [2**32 - 1] * (VOCAB_SIZE // 32))


def row(sampling: SamplingParams, length: int, grammar: Anything | None) -> Row:
    tokens = array("i", range(length))
    counts = TokenCounts(frozenset(tokens), dict(Counter([1, 2])))
    return Row(0, 0, 1, sampling, tokens, length - 1, counts, grammar)


def batch_of(lens: list[tuple[int, int]], num_decodes: int) -> ScheduledBatch:
    """A step of (query tokens, context tokens), decodes first; every sequence is sampled."""
    starts, positions, slots, tables = [0], [], [], []
    for index, (query_len, kv_len) in enumerate(lens):
        starts.append(starts[-1] + query_len)
        places = range(kv_len - query_len, kv_len)
        positions += places
        tables.append(array("i", [2 * index, 2 * index + 1]))
        slots += [tables[-1][place // PAGE] * PAGE + place % PAGE for place in places]
    return ScheduledBatch(
        token_ids=array("i", [1] * starts[-1]),
        positions=array("i", positions),
        slot_mapping=array("i", slots),
        cu_seqlens_q=array("i", starts),
        seq_lens_k=array("i", [kv_len for _, kv_len in lens]),
        block_tables=tables,
        sample_rows=array("i", [end - 1 for end in starts[1:]]),
        rows=[
            row(SAMPLINGS[index % len(SAMPLINGS)], kv_len, Anything() if index % 2 else None)
            for index, (_, kv_len) in enumerate(lens)
        ],
        num_decodes=num_decodes,
        max_seqlen_q=max(query_len for query_len, _ in lens),
        max_seqlen_k=max(kv_len for _, kv_len in lens),
    )


STEPS = {
    "decode": ([(1, 5), (1, 300), (1, 257), (1, 1)], 4),
    "prefill": ([(40, 40)], 0),
    "mixed": ([(1, 5), (1, 300), (9, 20), (40, 300)], 2),
    "rests of prompts": ([(1, 257), (1, 1)], 0),
}
