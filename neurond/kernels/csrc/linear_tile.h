// Products of P panels with R rows: the loops over the inputs.
//
// Every shape of tile does the same operations in the same order for an output element.
#pragma once

#include "linear_dot.h"

namespace cortex {

// The most rows of a tile, and how many panels one of R rows takes at once: as many sums as there are registers,
// and enough to hide the latency of one addition.
template <class Group>
constexpr int kTileRows = 6;
template <>
constexpr int kTileRows<Bf16Group> = 5;

template <class Group>
constexpr int tile_panels(int) {
    return 1;
}
template <>
constexpr int tile_panels<Bf16Group>(int rows) {
    return rows == 1 ? 4 : rows == 2 ? 2 : 1;
}

// sums[p][r] over `groups` groups of panels that begin at w, `panel_groups` groups apart, and of R rows of prepared
// inputs that are `stride` bytes apart. As many bytes at `ahead`, if that is not null, are fetched meanwhile.
template <int P, int R>
inline void tile(const Bf16Group *w, int panel_groups, int groups, const std::byte *x, std::size_t stride,
                 const void *ahead, F16 (&sums)[P][R]) {
    CORTEX_UNROLL
    for (int p = 0; p < P; ++p) {
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) sums[p][r] = zero();
    }
    auto add = [&](int p, F16 weights, int k) {
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r)
            sums[p][r] = fma(weights, splat(inputs_at<Bf16Inputs>(x, stride, r).x[k]), sums[p][r]);
    };
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Bf16Inputs)) {
        if (ahead) ahead = fetch<P * sizeof *w>(ahead);
        for (int k = 0; k < kGroup; k += 2) {
            CORTEX_UNROLL
            for (int p = 0; p < P; ++p) {
                const bf16 *at = w[static_cast<std::ptrdiff_t>(p) * panel_groups].w + k * kLanes;
                add(p, load_even(at), k);
                add(p, load_odd(at), k + 1);
            }
        }
    }
}

template <int R>
inline void tile(const Int8Group *w, int, int groups, const std::byte *x, std::size_t stride,
                 const void *ahead, F16 (&sums)[1][R]) {
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) sums[0][r] = zero();
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Int8Inputs)) {
        if (ahead) ahead = fetch<sizeof *w>(ahead);
        I16 dots[R];
        dot<R>(*w, x, stride, dots);
        const F16 scale = load_half(w->scale);
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) {
            const Int8Inputs &inputs = inputs_at<Int8Inputs>(x, stride, r);
            sums[0][r] = fma(to_float(dots[r]), scale * splat(inputs.scale), sums[0][r]);
        }
    }
}

template <int R>
inline void tile(const Int4Group *w, int, int groups, const std::byte *x, std::size_t stride,
                 const void *ahead, F16 (&sums)[1][R]) {
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) sums[0][r] = zero();
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Int4Inputs)) {
        if (ahead) ahead = fetch<sizeof *w>(ahead);
        I16 dots[R];
        dot<R>(*w, x, stride, dots);
        const F16 scale = load_half(w->scale), minimum = load_half(w->minimum);
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) {
            const Int4Inputs &inputs = inputs_at<Int4Inputs>(x, stride, r);
            sums[0][r] = fma(to_float(dots[r]), scale * splat(inputs.scale), sums[0][r]);
            sums[0][r] = fma(minimum, splat(inputs.sum), sums[0][r]);
        }
    }
}

}  // namespace cortex
