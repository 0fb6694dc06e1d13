"""Products of rows with matrices of their own, in Triton: a token's with those of its experts."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows_per_input"])
def expert_products(
    inputs,
    weights,
    bias,
    experts,
    places,
    out,
    num_outputs,
    num_inputs,
    expert_stride,
    output_stride,
    input_stride,
    rows_per_input,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
    has_bias: tl.constexpr,
):
    """Multiply row `places[p] // rows_per_input` of `inputs` by the matrix `experts[p]`.

    Writes row `places[p]` of `out`. Neighbours in `experts` that are equal read the same matrix at
    about the same time, so it comes from the device's memory once.
    """
    pair = tl.program_id(0)
    expert = tl.load(experts + pair).to(tl.int64)
    place = tl.load(places + pair)
    outputs = tl.program_id(1) * block_outputs + tl.arange(0, block_outputs)
    of_outputs = outputs < num_outputs
    matrix = weights + expert * expert_stride + outputs[:, None] * output_stride
    row = inputs + (place // rows_per_input) * num_inputs
    sums = tl.zeros([block_outputs], tl.float32)
    for start in range(0, num_inputs, block_inputs):
        at = start + tl.arange(0, block_inputs)
        of_inputs = at < num_inputs
        tile = tl.load(
            matrix + at[None, :] * input_stride,
            mask=of_outputs[:, None] & of_inputs[None, :],
            other=0.0,
        )
        values = tl.load(row + at, mask=of_inputs, other=0.0)
        sums += tl.sum(tile.to(tl.float32) * values.to(tl.float32)[None, :], 1)
    if has_bias:
        sums += tl.load(bias + expert * num_outputs + outputs, mask=of_outputs, other=0.0).to(
            tl.float32
        )
    tl.store(out + place * num_outputs + outputs, sums.to(out.dtype.element_ty), mask=of_outputs)
