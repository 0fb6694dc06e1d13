// Products with bfloat16 keys and values as they lie in pages, and how such pages are written.
//
// Scores and weighted values are the same product: a row's floats times vectors of 16 lanes, added up in ascending
// order.
#pragma once

#include <cstdint>
#include <cstring>

#include "attention_product.h"
#include "attention_softmax.h"
#include "carver.h"

namespace cortex {

struct Bf16Kv : LaneFormat {
    using Number = bf16;

    // Vectors beside each other: where rows are few enough, to keep two multiplying units busy.
    static constexpr int vectors_for(int rows) {
#ifdef CORTEX_AVX512
        return rows <= 2 ? 4 : 2;
#else
        return rows == 1 ? 4 : rows == 2 ? 2 : 1;
#endif
    }

    // A worker's memory for this format.
    struct Work {
        float *query;  // [kLaneRows, head_dim]

        Work(Carver &memory, int head_dim)
            : query(memory.take<float>(kLaneRows * static_cast<std::size_t>(head_dim))) {}
    };

    static void take_query(const Work &work, int row, const float *head, int head_dim, float scale) {
        float *query = work.query + static_cast<std::size_t>(row) * head_dim;
        const F16 factor = splat(scale);
        for (int d = 0; d < head_dim; d += kLanes) store(query + d, load(head + d) * factor);
    }

    // scores [R][S * 16] of rows from `row` on with S blocks of keys, while those `ahead` are fetched.
    template <int R, int S>
    static void score(const Work &work, int row, int head_dim, const bf16 *const *keys,
                      const bf16 *const *keys_ahead, float *scores) {
        const bf16 *b[S], *ahead[S];
        F16 sums[R][S];
        for (int s = 0; s < S; ++s) b[s] = keys[s], ahead[s] = keys_ahead[s];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) sums[r][s] = zero();
        accumulate<R, S>(work.query + static_cast<std::size_t>(row) * head_dim, head_dim, b, ahead, kPairedLanes,
                         head_dim / 2, sums);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) store(scores + r * kScoreStride + s * kLanes, sums[r][s]);
    }

    static void take_weights(const Work &, int, float *, const bf16 *const *, int, Record record, int head_dim) {
        std::fill_n(record.values(), head_dim, 0.0f);
    }

    // Values of records from `record` on [R][S * 16] += weights [R][num_blocks * 16] times S * 16 dimensions, from
    // `dim` on, of the blocks' values.
    template <int R, int S>
    static void weigh(const Work &, int, const float *weights, int first_block, const bf16 *const *values,
                      const bf16 *const *values_ahead, int num_blocks, int head_dim, int dim, Record record) {
        const std::size_t stride = Record::floats(head_dim);
        float *out = record.values() + dim;
        F16 sums[R][S];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) sums[r][s] = load(out + r * stride + s * kLanes);
        for (int block = 0; block < num_blocks; ++block) {
            const bf16 *b[S], *ahead[S];
            for (int s = 0; s < S; ++s) {
                b[s] = values[block] + 2 * dim + s * kPairedLanes;
                ahead[s] = values_ahead[block] + 2 * dim + s * kPairedLanes;
            }
            accumulate<R, S>(weights + (first_block + block) * kBlockTokens, kScoreStride, b, ahead,
                             2 * static_cast<std::size_t>(head_dim), kBlockTokens / 2, sums);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) store(out + r * stride + s * kLanes, sums[r][s]);
    }

    static void finish_values(const Work &, int, Record, int) {}

    // Put one head of one token into its page.
    static void write(bf16 *keys, bf16 *values, const PageShape<bf16> &shape, int token, const float *key,
                      const float *value) {
#ifdef CORTEX_AMX
        // What is below 2^-126 is written as 0, which products take it for.
        const int shift = token % 2 * 16;
        for (int first = 0; first < shape.head_dim; first += kLanes) {
            bf16 rounded[kLanes];
            store_rounded(rounded, load(key + first));
            for (int d = 0; d < kLanes; d += 2)
                std::memcpy(keys + shape.key(token, (first + d) / 2), rounded + d, 2 * sizeof(bf16));
            store_rounded(rounded, load(value + first));
            bf16 *at = values + shape.value(token - token % 2, first);
            std::uint32_t pairs[kLanes];
            std::memcpy(pairs, at, sizeof pairs);
            for (int d = 0; d < kLanes; ++d)
                pairs[d] = (pairs[d] & 0xffff0000u >> shift) | static_cast<std::uint32_t>(rounded[d]) << shift;
            std::memcpy(at, pairs, sizeof pairs);
        }
#else
        for (int d = 0; d < shape.head_dim; ++d) {
            keys[shape.key(token, d / 2) + d % 2] = to_bf16(key[d]);
            values[shape.value(token, d)] = to_bf16(value[d]);
        }
#endif
    }

  private:
    // sums[r][s] += a[r][2p] * first + a[r][2p + 1] * second, over the pairs p of b[s]. What is at `ahead` is fetched
    // meanwhile: so many bytes as b's.
    template <int R, int S>
    static void accumulate(const float *a, std::size_t a_stride, const bf16 *const (&b)[S],
                           const bf16 *const (&ahead)[S], std::size_t b_stride, int pairs, F16 (&sums)[R][S]) {
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
};

}  // namespace cortex
