// Packed weights and the products made with them.
//
// Output features are packed in panels of 16, one for each lane. An output element is a sum over the groups of
// 32 inputs in ascending order, each computed the same way for any number of rows, so its bits depend on its
// own row of x alone.
//
// int8: w = scale * q, a float16 scale for each group and output; int4: w = scale * q + minimum, q in [0, 15].
// x is quantised row by row with one float32 scale for each group of 32, to 15 bits, or to 8 with a second product for
// groups that those are too few for (linear_inputs.h). bf16: x is rounded to bf16.
#pragma once

#include <cstddef>

#include "abi.h"

namespace cortex {

// Bytes of one row of x as `prepare_row` leaves it; a multiple of 64.
std::size_t prepared_bytes(int format, int in_features);

// Round or quantise one row of x [in_features] for products with weights of `format`.
void prepare_row(int format, int in_features, const float *x, void *prepared);

// How a product of `rows` rows is best cut: threads get multiples of `panels`, and take them in items of so many rows
// and of multiples of `tile_panels`, those that are multiplied at once.
struct Cut {
    int rows, panels, tile_panels;
};
Cut cut_of(const cortex_linear &w, int rows);

inline int panels_of(const cortex_linear &w) { return (w.out_features + 15) / 16; }

// Whether `multiply_gated` makes rows for products with `next`.
bool gates(const cortex_linear &gate_up, const cortex_linear &next);

// Prepared rows of `next`, whose inputs are activation(gate) * up of the products of `prepared` rows with gate_up: the
// inputs of panels [first_panel, first_panel + panels) of the gate. They are as by way of `multiply` and
// `prepare_row`, with an activation as exact as bfloat16 can tell.
void multiply_gated(const cortex_linear &gate_up, const void *prepared, int rows, int first_panel, int panels,
                    int activation, const cortex_linear &next, void *next_prepared);

// y[r, n] = bias[n] + prepared[r] . w[n] for `rows` rows and the features of panels [first_panel,
// first_panel + panels); rows of y are `y_stride` floats apart. With `add`, y[r, n] is added last.
void multiply(const cortex_linear &w, const void *prepared, int rows, int first_panel, int panels, float *y,
              std::size_t y_stride, bool add);

}  // namespace cortex
