// Loops over the row functions of the kernels, `neurond/kernels/csrc/ops.cpp`, which are not exported by the library.
#include "ops.h"

extern "C" {

// out[row] = rms_norm(x[row]) for `rows` rows of `size`, so many times.
void norm_rows(int passes, int rows, int size, const float *x, const float *weight, float *out) {
    for (int pass = 0; pass < passes; ++pass)
        for (int row = 0; row < rows; ++row)
            cortex::rms_norm(x + row * size, weight, size, 1e-5f, out + row * size);
}

// Turn `heads` heads of `dim` in each of `rows` rows, in place; row r stands at position r.
void rotate_rows(int passes, int rows, int heads, int dim, const float *cos, const float *sin, float *x) {
    const cortex_rope rope{rows, dim, cos, sin};
    for (int pass = 0; pass < passes; ++pass)
        for (int row = 0; row < rows; ++row)
            for (int head = 0; head < heads; ++head) cortex::rotate(rope, row, x + (row * heads + head) * dim);
}

// out[row] = activation(x[row]) * x[row + size] for rows of gate and up side by side, 2 `size` each.
void activate_rows(int passes, int activation, int rows, int size, const float *x, float *out) {
    for (int pass = 0; pass < passes; ++pass)
        for (int row = 0; row < rows; ++row) {
            const float *gate = x + 2 * row * size;
            cortex::activate(activation, gate, gate + size, size, out + row * size);
        }
}
}
