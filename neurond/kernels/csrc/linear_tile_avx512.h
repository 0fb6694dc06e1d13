// Products of P panels with R rows, in instructions that add up two bf16 products or four of bytes in a lane.
//
// Every shape of tile does the same operations in the same order for an output element.
#pragma once

#include "linear_layout.h"

namespace cortex {

// With as many panels as tile_panels says, the sums take three quarters of the registers.
template <class Group>
constexpr int kTileRows = 6;

template <class Group>
constexpr int tile_panels(int rows) {
    return rows <= 3 ? 4 : 2;
}
template <>
constexpr int tile_panels<Bf16Group>(int) {
    return 4;
}

template <class T>
inline __m512i broadcast_4_bytes(const T *p) {
    std::int32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _mm512_set1_epi32(bits);
}

// Of each output the weights of inputs k to k + 3, unsigned.
inline __m512i weights_at(const Int8Group &w, int k) { return _mm512_loadu_si512(w.q + k * kLanes); }
inline __m512i weights_at(const Int4Group &w, int k) {
    const __m512i both = _mm512_loadu_si512(w.q + k / 8 * 64);
    return _mm512_and_si512(k % 8 ? _mm512_srli_epi16(both, 4) : both, _mm512_set1_epi8(15));
}

inline std::int32_t start_of(const Int8Inputs &inputs) { return inputs.offset_sum; }
inline std::int32_t start_of(const Int4Inputs &) { return 0; }

inline F16 add_group(const Int8Group &w, const Int8Inputs &inputs, I16 dot, F16 sum) {
    return fma(to_float(dot), load_half(w.scale) * splat(inputs.scale), sum);
}
inline F16 add_group(const Int4Group &w, const Int4Inputs &inputs, I16 dot, F16 sum) {
    sum = fma(to_float(dot), load_half(w.scale) * splat(inputs.scale), sum);
    return fma(load_half(w.minimum), splat(inputs.sum), sum);
}

// Products of one group of P panels, `panel` groups apart, with the inputs of R rows; exact.
template <int P, int R, class Inputs, class Group>
inline void dot(const Group *w, std::ptrdiff_t panel, const std::byte *x, std::size_t stride, I16 (&dots)[P][R]) {
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) {
        const __m512i start = _mm512_set1_epi32(start_of(inputs_at<Inputs>(x, stride, r)));
        CORTEX_UNROLL
        for (int p = 0; p < P; ++p) dots[p][r] = {start};
    }
    CORTEX_UNROLL
    for (int k = 0; k < kGroup; k += 4) {
        __m512i weights[P];
        CORTEX_UNROLL
        for (int p = 0; p < P; ++p) weights[p] = weights_at(w[p * panel], k);
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m512i four = broadcast_4_bytes(inputs_at<Inputs>(x, stride, r).q + k);
            CORTEX_UNROLL
            for (int p = 0; p < P; ++p) dots[p][r] = {_mm512_dpbusd_epi32(dots[p][r].v, weights[p], four)};
        }
    }
}

template <int P, int R>
inline void clear(F16 (&sums)[P][R]) {
    CORTEX_UNROLL
    for (int p = 0; p < P; ++p) {
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) sums[p][r] = zero();
    }
}

// As in linear_tile.h.
template <class Format, int P, int R>
inline void tile_of_integers(const typename Format::Group *w, int panel_groups, int groups, const std::byte *x,
                             std::size_t stride, const void *ahead, F16 (&sums)[P][R]) {
    using Inputs = typename Format::Inputs;
    clear(sums);
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Inputs)) {
        if (ahead) ahead = fetch<P * sizeof(typename Format::Group)>(ahead);
        I16 dots[P][R];
        dot<P, R, Inputs>(w, panel_groups, x, stride, dots);
        CORTEX_UNROLL
        for (int p = 0; p < P; ++p) {
            const auto &group = w[static_cast<std::ptrdiff_t>(p) * panel_groups];
            CORTEX_UNROLL
            for (int r = 0; r < R; ++r)
                sums[p][r] = add_group(group, inputs_at<Inputs>(x, stride, r), dots[p][r], sums[p][r]);
        }
    }
}

template <int P, int R>
inline void tile(const Int8Group *w, int panel_groups, int groups, const std::byte *x, std::size_t stride,
                 const void *ahead, F16 (&sums)[P][R]) {
    tile_of_integers<Int8Format>(w, panel_groups, groups, x, stride, ahead, sums);
}

template <int P, int R>
inline void tile(const Int4Group *w, int panel_groups, int groups, const std::byte *x, std::size_t stride,
                 const void *ahead, F16 (&sums)[P][R]) {
    tile_of_integers<Int4Format>(w, panel_groups, groups, x, stride, ahead, sums);
}

// The instruction takes numbers below 2^-126 for 0.
template <int P, int R>
inline void tile(const Bf16Group *w, int panel_groups, int groups, const std::byte *x, std::size_t stride,
                 const void *ahead, F16 (&sums)[P][R]) {
    clear(sums);
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Bf16Inputs)) {
        if (ahead) ahead = fetch<P * sizeof(Bf16Group)>(ahead);
        for (int k = 0; k < kGroup; k += 2) {
            __m512i weights[P];
            CORTEX_UNROLL
            for (int p = 0; p < P; ++p)
                weights[p] = _mm512_loadu_si512(w[static_cast<std::ptrdiff_t>(p) * panel_groups].w + k * kLanes);
            CORTEX_UNROLL
            for (int r = 0; r < R; ++r) {
                const __m512i pair = broadcast_4_bytes(inputs_at<Bf16Inputs>(x, stride, r).x + k);
                CORTEX_UNROLL
                for (int p = 0; p < P; ++p)
                    sums[p][r].v = _mm512_dpbf16_ps(sums[p][r].v, (__m512bh)weights[p], (__m512bh)pair);
            }
        }
    }
}

}  // namespace cortex
