"""Runs the Triton kernels by Triton's interpreter and writes how far off each case is, as JSON.

A process of its own, with TRITON_INTERPRET=1: that is read when Triton is first imported.
"""

import json
import sys

import torch

from neurond.attention.base import AttentionParams
from neurond.attention.paged_decodes import PagedDecodes
from neurond.attention.reference import ReferenceBackend
from neurond.attention.trial import Heads, why_not
from neurond.engine.kv_shape import LayerShape
from tests.fakes.attention_cases import attend_slowly, make_case

SCALE = 0.3
DECODES = [(1, 5), (1, 300), (1, 257), (1, 1), (1, 64)]
SMALL = LayerShape(2, 16, 16)
KINDS = {
    "plain": AttentionParams(SCALE),
    "window": AttentionParams(SCALE, window=6),
    "window of one": AttentionParams(SCALE, window=1),
    "window of blocks": AttentionParams(SCALE, window=100),
    "softcap": AttentionParams(SCALE, softcap=1.5),
    "all": AttentionParams(SCALE, window=6, softcap=1.5, sinks=torch.linspace(-2, 3, 6)),
}
HEADS = {"groups of one": (2, 8), "odd": (4, 96), "wide groups": (32, 64), "large": (6, 256)}


def backend() -> PagedDecodes:
    return PagedDecodes(ReferenceBackend())


def error(case, params) -> float:
    out = backend().plan(case.batch).attend(case.query, *case.pages, params)
    assert out.dtype == case.query.dtype
    return float((out.double() - attend_slowly(case, params)).abs().max())


def mixed_bits() -> float:
    """Return how far a decode beside a prompt is from the same one alone."""
    case = make_case([(1, 300), (1, 5), (9, 20)], shape=SMALL, block_tokens=256)
    out = backend().plan(case.batch).attend(case.query, *case.pages, KINDS["all"])
    alone = backend().plan(case.batch.decodes())
    expected = alone.attend(case.query[:2], *case.pages, KINDS["all"])
    return float((out[:2] - expected).abs().max())


def main() -> None:
    errors = {}
    for kind, params in KINDS.items():
        case = make_case(DECODES, shape=SMALL, block_tokens=256, dtype=torch.float16)
        errors[kind] = error(case, params)
    for name, (num_heads, dim) in HEADS.items():
        shape = LayerShape(2, dim, dim)
        case = make_case(DECODES[:2], num_heads=num_heads, shape=shape, block_tokens=256)
        errors[name] = error(case, KINDS["plain"])
    case = make_case([(1, 300), (1, 5), (9, 20)], shape=SMALL, block_tokens=256)
    errors["mixed"] = error(case, KINDS["all"])
    errors["beside a prompt"] = mixed_bits()
    lens = [(1, 300), (1, 5), (9, 20), (7, 300)]
    two_way = (False, False, True, False)
    case = make_case(lens, shape=SMALL, block_tokens=256, two_way=two_way)
    errors["beside an image"] = error(case, KINDS["all"])
    heads = Heads(6, SMALL, KINDS["all"])
    reason = why_not(backend(), [heads, heads], torch.float32, torch.device("cpu"))
    sys.stdout.write(json.dumps({"errors": errors, "reason": reason}))


if __name__ == "__main__":
    main()
