// Products with int8 keys and values as they lie in pages, and how such pages are written.
//
// A key's numbers share a scale in groups of 32 dimensions, a value's all do. The two dimensions of a pair are
// half a head apart, as those are that a rotation mixes: a pair that is far larger than others takes digits from one
// group alone. What they are multiplied with, a query and the weights of a span, is rounded to 16 bits, which adds a few
// hundredths of the error that keys and values have from their 8. So sums are of integers and exact, in any order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "attention_pairs.h"
#include "attention_product.h"
#include "attention_softmax.h"
#include "carver.h"

namespace cortex {

struct Int8Kv : LaneFormat {
    using Number = std::int8_t;

    // Vectors beside each other: as many as there are registers for.
    static constexpr int vectors_for(int rows) {
#ifdef CORTEX_AVX512
        return rows <= 2 ? 4 : 2;
#else
        return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
#endif
    }

    // A worker's memory for this format.
    struct Work {
        std::int16_t *query;    // [kLaneRows, head_dim] in the order of keys
        float *query_scales;    // [kLaneRows, groups]
        std::int16_t *weights;  // [kLaneRows, kScoreStride]
        float *weight_scales;   // [kLaneRows]
        std::int32_t *sums;     // [kLaneRows, head_dim]

        Work(Carver &memory, int head_dim)
            : query(memory.take<std::int16_t>(kLaneRows * static_cast<std::size_t>(head_dim))),
              query_scales(memory.take<float>(kLaneRows * static_cast<std::size_t>(key_groups(head_dim)))),
              weights(memory.take<std::int16_t>(kLaneRows * kScoreStride)),
              weight_scales(memory.take<float>(kLaneRows)),
              sums(memory.take<std::int32_t>(kLaneRows * static_cast<std::size_t>(head_dim))) {}
    };

    static void take_query(const Work &work, int row, const float *head, int head_dim, float scale) {
        std::int16_t *query = work.query + static_cast<std::size_t>(row) * head_dim;
        float *scales = work.query_scales + static_cast<std::size_t>(row) * key_groups(head_dim);
        for (int first = 0; first < head_dim; first += kKeyGroup) {
            const Group group(head, head_dim, first);
            const float largest = group.largest();
            const F16 inverse = splat(ratio(kLargestFactor, largest));
            for (int i = 0; i < group.size; i += kLanes)
                store_whole(query + first + i, round(load(group.x + i) * inverse));
            *scales++ = scale * largest / kLargestFactor;
        }
    }

    // See Bf16Kv::score.
    template <int R, int S>
    static void score(const Work &work, int row, int head_dim, const Number *const *keys,
                      const Number *const *keys_ahead, float *scores) {
        const int groups = key_groups(head_dim);
        const float *query_scales = work.query_scales + static_cast<std::size_t>(row) * groups;
        const Number *b[S], *ahead[S];
        F16 totals[R][S];
        for (int s = 0; s < S; ++s) b[s] = keys[s], ahead[s] = keys_ahead[s];
        for (int s = 0; s < S; ++s)
            for (int at = 0; at <= groups; at += 2) __builtin_prefetch(scales(keys_ahead[s], head_dim) + at * kLanes);
        for (int r = 0; r < R; ++r)
            for (int s = 0; s < S; ++s) totals[r][s] = zero();
        for (int group = 0; group < groups; ++group) {
            const int first = group * kKeyGroup;
            I16 sums[R][S];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
                for (int s = 0; s < S; ++s) sums[r][s] = no_sum();
            accumulate<R, S, true>(work.query + static_cast<std::size_t>(row) * head_dim + first, head_dim, b, ahead,
                                   kPairedLanes, std::min(kKeyGroup, head_dim - first) / 2, sums);
            for (int s = 0; s < S; ++s) {
                const F16 scale = load_bf16(scales(keys[s], head_dim) + group * kLanes);
                for (int r = 0; r < R; ++r)
                    totals[r][s] = fma(to_float(sums[r][s]) * scale, splat(query_scales[r * groups + group]),
                                       totals[r][s]);
                b[s] += kKeyGroup / 2 * kPairedLanes;
                ahead[s] += kKeyGroup / 2 * kPairedLanes;
            }
        }
        for (int r = 0; r < R; ++r)
            for (int s = 0; s < S; ++s) store(scores + r * kScoreStride + s * kLanes, totals[r][s]);
    }

    // Multiply a row's weights by the values' scales, and round them to one scale for the span.
    static void take_weights(const Work &work, int row, float *weights, const Number *const *keys, int num_blocks,
                             Record, int head_dim) {
        F16 largest = zero();
        for (int block = 0; block < num_blocks; ++block) {
            float *at = weights + block * kLanes;
            const F16 scaled = load(at) * load_bf16(scales(keys[block], head_dim) + key_groups(head_dim) * kLanes);
            store(at, scaled);
            largest = max(largest, scaled);
        }
        const float most = max_lane(largest);
        const F16 inverse = splat(ratio(kLargestFactor, most));
        std::int16_t *whole = work.weights + row * kScoreStride;
        for (int at = 0; at < num_blocks * kLanes; at += kLanes)
            store_whole(whole + at, round(load(weights + at) * inverse));
        work.weight_scales[row] = most / kLargestFactor;
        std::fill_n(work.sums + static_cast<std::size_t>(row) * head_dim, head_dim, 0);
    }

    // See Bf16Kv::weigh; sums stay whole until the span's end.
    template <int R, int S>
    static void weigh(const Work &work, int row, const float *, int first_block, const Number *const *values,
                      const Number *const *values_ahead, int num_blocks, int head_dim, int dim, Record) {
        std::int32_t *out = work.sums + static_cast<std::size_t>(row) * head_dim + dim;
        const std::int16_t *weights = work.weights + row * kScoreStride + first_block * kBlockTokens;
        I16 sums[R][S];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) sums[r][s] = load(out + r * head_dim + s * kLanes);
        for (int block = 0; block < num_blocks; ++block) {
            const Number *b[S], *ahead[S];
            for (int s = 0; s < S; ++s) {
                b[s] = values[block] + 2 * dim + s * kPairedLanes;
                ahead[s] = values_ahead[block] + 2 * dim + s * kPairedLanes;
            }
            accumulate<R, S, false>(weights + block * kBlockTokens, kScoreStride, b, ahead,
                                    2 * static_cast<std::size_t>(head_dim), kBlockTokens / 2, sums);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) store(out + r * head_dim + s * kLanes, sums[r][s]);
    }

    static void finish_values(const Work &work, int row, Record record, int head_dim) {
        const std::int32_t *sums = work.sums + static_cast<std::size_t>(row) * head_dim;
        const F16 scale = splat(work.weight_scales[row]);
        for (int d = 0; d < head_dim; d += kLanes) store(record.values() + d, to_float(load(sums + d)) * scale);
    }

    // Put one head of one token into its page.
    static void write(Number *keys, Number *values, const PageShape<Number> &shape, int token, const float *key,
                      const float *value) {
        bf16 *scale = const_cast<bf16 *>(scales(keys, shape.head_dim)) + token;
        Number whole[kKeyGroup];
        for (int first = 0; first < shape.head_dim; first += kKeyGroup, scale += kLanes) {
            const Group group(key, shape.head_dim, first);
            *scale = scale_for(group.largest());
            for (int i = 0; i < group.size; i += kLanes) quantise(group.x + i, *scale, whole + i);
            for (int i = 0; i < group.size; i += 2)
                std::copy_n(whole + i, 2, keys + shape.key(token, (first + i) / 2));
        }
        F16 largest = zero();
        for (int d = 0; d < shape.head_dim; d += kLanes) largest = max(largest, abs(load(value + d)));
        *scale = scale_for(max_lane(largest));
        for (int d = 0; d < shape.head_dim; d += kLanes) {
            quantise(value + d, *scale, whole);
            for (int i = 0; i < kLanes; ++i) values[shape.value(token, d + i)] = whole[i];
        }
    }

  private:
    static constexpr float kLargestNumber = 127.0f, kLargestFactor = 32767.0f;
    // What is smaller is 0: its inverse may not be finite.
    static constexpr float kLeastScale = 1e-30f;
    static_assert(kSpanTokens * std::int64_t{32767} * 128 <= std::numeric_limits<std::int32_t>::max(),
                  "the values of a span are added up in int32");

    // A group's numbers in the order of keys, zeros behind them.
    struct Group {
        float x[kKeyGroup] = {};
        int size;

        Group(const float *head, int head_dim, int first) : size(std::min(kKeyGroup, head_dim - first)) {
            const float *low = head + first / 2, *high = low + head_dim / 2;
            for (int i = 0; i < size / 2; ++i) x[2 * i] = low[i], x[2 * i + 1] = high[i];
        }
        float largest() const { return max_lane(max(abs(load(x)), abs(load(x + kLanes)))); }
    };

    static float ratio(float a, float b) { return b > kLeastScale ? a / b : 0.0f; }

    // The scale that makes numbers up to `largest` in magnitude no more than 127, rounded up.
    static bf16 scale_for(float largest) {
        const float exact = largest / kLargestNumber;
        std::uint32_t bits;
        std::memcpy(&bits, &exact, sizeof bits);
        return static_cast<bf16>((bits >> 16) + ((bits & 0xffff) != 0));
    }

    static void quantise(const float *x, bf16 scale, Number *whole) {
        store_whole(whole, round(load(x) * splat(ratio(1.0f, from_bf16(scale)))));
    }

    // A page's scales: of the keys, group by group, then of the values.
    static const bf16 *scales(const Number *keys, int head_dim) {
        return reinterpret_cast<const bf16 *>(keys) - page_scales<Number>(head_dim);
    }

    // sums[r][s] += a[r][2p] * b[s][2p] + a[r][2p + 1] * b[s][2p + 1], over the pairs p of b[s], an even number.
    // What is at `ahead` is fetched meanwhile: of keys pairs lie behind each other, of values vectors do.
    template <int R, int S, bool Keys>
    static void accumulate(const std::int16_t *a, std::size_t a_stride, const Number *const (&b)[S],
                           const Number *const (&ahead)[S], std::size_t b_stride, int pairs, I16 (&sums)[R][S]) {
        for (int p = 0; p < pairs; p += 2, a += 4) {
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 8
                for (int s = 0; s < S; ++s) {
                    if (Keys ? i == 0 : s % 2 == 0) __builtin_prefetch(ahead[s] + (p + i) * b_stride);
                    const Pairs numbers = load_pairs(b[s] + (p + i) * b_stride);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r)
                        sums[r][s] = add_products(sums[r][s], numbers, a + r * a_stride + 2 * i);
                }
            }
        }
    }
};

}  // namespace cortex
