// What attention_amx.h computes, to the last bit, by vectors: a few rows are bound by reading keys and values, which
// vectors do in less time than tiles.
#pragma once

#include <algorithm>
#include <cstddef>

#include "attention_amx_weights.h"
#include "attention_lanes.h"
#include "attention_pages.h"
#include "attention_product.h"
#include "attention_softmax.h"
#include "carver.h"
#include "simd.h"
#include "tiles_in_lanes.h"

namespace cortex {

// Rows that a tile has at most, also where few of them see a span.
constexpr int kAmxRows = 256;

struct AmxFewRows {
    using Number = bf16;
    static constexpr int kMostRows = 8;
    static constexpr int kBlocksTogether = 2;

    static constexpr int vectors_for(int rows) { return rows <= 2 ? 4 : rows <= 4 ? 2 : 1; }

    using Arithmetic = TileArithmetic;

    struct Work {
        float *query;  // [kAmxRows, head_dim]

        Work(Carver &memory, int head_dim)
            : query(memory.take<float>(kAmxRows * static_cast<std::size_t>(head_dim))) {}
    };

    // Of a rounded query.
    static void take_query(const Work &work, int row, const bf16 *head, int head_dim) {
        float *query = work.query + static_cast<std::size_t>(row) * head_dim;
        for (int d = 0; d < head_dim; d += kLanes) store(query + d, load_bf16(head + d));
    }

    // See Bf16Kv::score.
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
        const float *query = work.query + static_cast<std::size_t>(row) * head_dim;
        for (int d = 0; d < head_dim; d += kPairedLanes) {
            TileProducts<R, S> products;
            add<R, S>(products, query + d, head_dim, b, ahead, kPairedLanes, std::min(kLanes, (head_dim - d) / 2));
            products.add_to(sums);
            for (int s = 0; s < S; ++s) b[s] += kLanes * kPairedLanes, ahead[s] += kLanes * kPairedLanes;
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) store(scores + r * kScoreStride + s * kLanes, sums[r][s]);
    }

    // Weights of 32 keys at a time are rounded, and their pairs added up, as tiles do.
    static void weights_from_scores(float *scores, int num_keys, int first_key, Seen seen, float cap, Record record) {
        F16 largest = hide(scores, first_key, seen, cap);
        for (int key = kLanes; key < num_keys; key += kLanes)
            largest = max(largest, hide(scores + key, first_key + key, seen, cap));
        record.largest() = max_lane(largest);
        F16 total = zero();
        const F16 offset = splat(weight_offset(record.largest()));
        for (int key = 0; key < num_keys; key += kPairedLanes) {
            float *at = scores + key;
            bf16 weights[kPairedLanes];
            store_rounded(weights, weight(load(at), offset), weight(load(at + kLanes), offset));
            store(at, load_bf16(weights));
            store(at + kLanes, load_bf16(weights + kLanes));
            total = total + (load_even(weights) + load_odd(weights));
        }
        record.sum() = sum(total);
    }

    static void take_weights(const Work &, int, float *, const bf16 *const *, int, Record record, int head_dim) {
        std::fill_n(record.values(), head_dim, 0.0f);
    }

    // See Bf16Kv::weigh; blocks come in pairs.
    template <int R, int S>
    static void weigh(const Work &, int, const float *weights, int first_block, const bf16 *const *values,
                      const bf16 *const *values_ahead, int num_blocks, int head_dim, int dim, Record record) {
        const std::size_t stride = Record::floats(head_dim), pair_stride = 2 * static_cast<std::size_t>(head_dim);
        float *out = record.values() + dim;
        F16 sums[R][S];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) sums[r][s] = load(out + r * stride + s * kLanes);
        for (int block = 0; block < num_blocks; block += 2) {
            TileProducts<R, S> products;
            for (int i = block; i < block + 2; ++i) {
                const bf16 *b[S], *ahead[S];
                for (int s = 0; s < S; ++s) {
                    b[s] = values[i] + 2 * dim + s * kPairedLanes;
                    ahead[s] = values_ahead[i] + 2 * dim + s * kPairedLanes;
                }
                add<R, S>(products, weights + (first_block + i) * kBlockTokens, kScoreStride, b, ahead, pair_stride,
                          kBlockTokens / 2);
            }
            products.add_to(sums);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) store(out + r * stride + s * kLanes, sums[r][s]);
    }

    static void finish_values(const Work &, int, Record, int) {}

  private:
    // As Bf16Kv::accumulate.
    template <int R, int S>
    static void add(TileProducts<R, S> &products, const float *a, std::size_t a_stride, const bf16 *const (&b)[S],
                    const bf16 *const (&ahead)[S], std::size_t b_stride, int pairs) {
        products.add(
            pairs,
            [=](int r, int p) {
                const float *pair = a + r * a_stride + 2 * p;
                return SplatPair{splat(pair[0]), splat(pair[1])};
            },
            [&](int s, int p) { return b[s] + p * b_stride; },
            [&](int s, int p) { __builtin_prefetch(ahead[s] + p * b_stride); });
    }
};

}  // namespace cortex
