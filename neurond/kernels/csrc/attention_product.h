// Products with bfloat16 keys and values as they lie in pages: register tiles of R rows and S vectors.
//
// Scores and weighted values are the same product: a row's floats times vectors of 16 lanes, added up in ascending
// order. An output element has one accumulator and one order of operations, whatever R and S it is computed with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "attention_pages.h"
#include "simd.h"

namespace cortex {

// Rows that one register tile takes, and vectors beside each other where rows are few: enough accumulators to keep
// two multiplying units busy.
constexpr int kMaxTileRows = 6;
#ifdef CORTEX_AVX512
constexpr int vectors_for(int rows) { return rows <= 2 ? 4 : 2; }
#else
constexpr int vectors_for(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
#endif

// sums[r][s] += a[r][2p] * first + a[r][2p + 1] * second, over the pairs p of b[s]. What is at `ahead` is fetched
// meanwhile: so many bytes as b's.
template <int R, int S>
inline void accumulate(const float *a, std::size_t a_stride, const bf16 *const (&b)[S], const bf16 *const (&ahead)[S],
                       std::size_t b_stride, int pairs, F16 (&sums)[R][S]) {
    for (int p = 0; p < pairs; ++p, a += 2) {
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) {
            __builtin_prefetch(ahead[s] + p * b_stride);
            const F16 first = load_even(b[s] + p * b_stride);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sums[r][s] = fma(splat(a[r * a_stride]), first, sums[r][s]);
            const F16 second = load_odd(b[s] + p * b_stride);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sums[r][s] = fma(splat(a[r * a_stride + 1]), second, sums[r][s]);
        }
    }
}

// scores [R][S * 16] of rows `query` [R][head_dim] with S blocks of keys, while those `ahead` are fetched.
template <int R, int S>
inline void score(const float *query, int head_dim, const bf16 *const *keys, const bf16 *const *keys_ahead,
                  float *scores, std::size_t score_stride) {
    const bf16 *b[S], *ahead[S];
    F16 sums[R][S];
    for (int s = 0; s < S; ++s) b[s] = keys[s], ahead[s] = keys_ahead[s];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) sums[r][s] = zero();
    accumulate<R, S>(query, head_dim, b, ahead, kPairedLanes, head_dim / 2, sums);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) store(scores + r * score_stride + s * kLanes, sums[r][s]);
}

// out [R][S * 16] += weights [R][num_blocks * 16] times S * 16 dimensions, from `dim` on, of the blocks' values.
template <int R, int S>
inline void weigh(const float *weights, std::size_t weight_stride, const bf16 *const *values,
                  const bf16 *const *values_ahead, int num_blocks, int head_dim, int dim, float *out,
                  std::size_t out_stride) {
    F16 sums[R][S];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) sums[r][s] = load(out + r * out_stride + dim + s * kLanes);
    for (int block = 0; block < num_blocks; ++block) {
        const bf16 *b[S], *ahead[S];
        for (int s = 0; s < S; ++s) {
            b[s] = values[block] + 2 * dim + s * kPairedLanes;
            ahead[s] = values_ahead[block] + 2 * dim + s * kPairedLanes;
        }
        accumulate<R, S>(weights + block * kBlockTokens, weight_stride, b, ahead,
                         2 * static_cast<std::size_t>(head_dim), kBlockTokens / 2, sums);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) store(out + r * out_stride + dim + s * kLanes, sums[r][s]);
}

template <int N>
using Constant = std::integral_constant<int, N>;

// Call f(row, Constant<R>) for tiles of R rows that together make up `rows`.
template <class F>
inline void each_row_tile(int rows, F &&f) {
    for (int row = 0; row < rows;) {
        const int left = rows - row;
        const int take = left == 7 || left == 8 ? 4 : std::min(left, kMaxTileRows);
        switch (take) {
            case 1: f(row, Constant<1>{}); break;
            case 2: f(row, Constant<2>{}); break;
            case 3: f(row, Constant<3>{}); break;
            case 4: f(row, Constant<4>{}); break;
            case 5: f(row, Constant<5>{}); break;
            default: f(row, Constant<kMaxTileRows>{});
        }
        row += take;
    }
}

// Call f(at, Constant<S>) for runs of S vectors that together make up `vectors`, with S at most Most.
template <int Most, class F>
inline void each_vector_tile(int vectors, F &&f) {
    int at = 0;
    for (; at + Most <= vectors; at += Most) f(at, Constant<Most>{});
    for (; at < vectors; ++at) f(at, Constant<1>{});
}

}  // namespace cortex
