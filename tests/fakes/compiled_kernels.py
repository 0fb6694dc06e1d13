"""Compiles the Triton kernels for GPUs that are not here; writes the shared memory each takes."""

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neurond.attention.paged_decodes import kernel_sizes
from neurond.attention.triton_kernels import split_decode
from neurond.models.token_experts import BLOCK_INPUTS, BLOCK_OUTPUTS
from neurond.models.triton_experts import expert_products

KINDS = {  # element type, head size, heads in a group
    75: [("fp16", 128, 4), ("fp16", 256, 8)],
    80: [("bf16", 128, 8), ("fp32", 64, 1)],
    86: [("bf16", 256, 4), ("fp32", 128, 4)],
    90: [("bf16", 64, 7)],
    120: [("bf16", 128, 4)],
}
POINTERS = {"table": "*i32", "lengths": "*i32", "out": "*fp32", "out_lse": "*fp32"}
FLOATS = {"scale": "fp32", "softcap": "fp32"}


def shared_bytes(capability: int, element: str, dim: int, group: int) -> int:
    constants = kernel_sizes(dim, group) | {
        "page_tokens": 256,
        "has_window": True,
        "has_softcap": True,
    }
    tensors = dict.fromkeys(("query", "keys", "values"), f"*{element}")
    known = tensors | POINTERS | FLOATS | dict.fromkeys(constants, "constexpr")
    names = split_decode.arg_names
    source = ASTSource(
        fn=split_decode,
        signature={name: known.get(name, "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_stages": 2}).metadata.shared


def shared_by_experts(capability: int, element: str) -> int:
    constants = {"block_outputs": BLOCK_OUTPUTS, "block_inputs": BLOCK_INPUTS, "has_bias": True}
    tensors = dict.fromkeys(("inputs", "weights", "bias", "out"), f"*{element}")
    known = tensors | {"experts": "*i64", "places": "*i64"} | dict.fromkeys(constants, "constexpr")
    names = expert_products.arg_names
    source = ASTSource(
        fn=expert_products,
        signature={name: known.get(name, "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32)).metadata.shared


if __name__ == "__main__":
    found = {
        capability: [
            *(shared_bytes(capability, *kind) for kind in kinds),
            shared_by_experts(capability, "fp16" if capability < 80 else "bf16"),
        ]
        for capability, kinds in KINDS.items()
    }
    sys.stdout.write(json.dumps(found))
