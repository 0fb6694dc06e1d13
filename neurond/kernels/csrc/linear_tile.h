// Products of one panel with R rows: the loops over the inputs.
//
// Every number of rows does the same operations in the same order for an output element.
#pragma once

#include "linear_dot.h"

namespace cortex {

// Sums of the panel whose groups begin at w, for R rows of prepared inputs `stride` bytes apart.
template <int R>
inline void tile(const Bf16Group *w, int groups, const std::byte *x, std::size_t stride, F16 (&sums)[R]) {
    for (int r = 0; r < R; ++r) sums[r] = zero();
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Bf16Inputs)) {
        for (int k = 0; k < kGroup; k += 2) {
            F16 even, odd;
            load_pair(w->w + k * kLanes, even, odd);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const float *at = inputs_at<Bf16Inputs>(x, stride, r).x + k;
                sums[r] = fma(even, splat(at[0]), sums[r]);
                sums[r] = fma(odd, splat(at[1]), sums[r]);
            }
        }
    }
}

template <int R>
inline void tile(const Int8Group *w, int groups, const std::byte *x, std::size_t stride, F16 (&sums)[R]) {
    for (int r = 0; r < R; ++r) sums[r] = zero();
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Int8Inputs)) {
        I16 dots[R];
        dot<R>(*w, x, stride, dots);
        const F16 scale = load_half(w->scale);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Int8Inputs &inputs = inputs_at<Int8Inputs>(x, stride, r);
            sums[r] = fma(to_float(dots[r]), scale * splat(inputs.scale), sums[r]);
        }
    }
}

template <int R>
inline void tile(const Int4Group *w, int groups, const std::byte *x, std::size_t stride, F16 (&sums)[R]) {
    for (int r = 0; r < R; ++r) sums[r] = zero();
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Int4Inputs)) {
        I16 dots[R];
        dot<R>(*w, x, stride, dots);
        const F16 scale = load_half(w->scale), minimum = load_half(w->minimum);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Int4Inputs &inputs = inputs_at<Int4Inputs>(x, stride, r);
            sums[r] = fma(to_float(dots[r]), scale * splat(inputs.scale), sums[r]);
            sums[r] = fma(minimum, splat(inputs.sum), sums[r]);
        }
    }
}

}  // namespace cortex
