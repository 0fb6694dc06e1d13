// What stands between scores and the result: masks, weights, and putting spans together.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "approx.h"
#include "attention_pages.h"
#include "simd.h"

namespace cortex {

// The keys [begin, end) that a query sees.
struct Seen {
    int begin, end;
};

// What a row has of one span, or of several: the largest score, the sum of weights exp(score - largest), and the
// sum of values so weighted. A row of `Record::floats(head_dim)`.
struct Record {
    float *at;

    static std::size_t floats(int head_dim) { return static_cast<std::size_t>(head_dim) + kLanes; }
    float &largest() const { return at[0]; }
    float &sum() const { return at[1]; }
    float *values() const { return at + kLanes; }
};

// 0 for keys in [begin, end), and minus infinity for the block's others; at least one key is seen.
inline F16 mask(Seen seen, int first_key) {
    static constexpr float inf = std::numeric_limits<float>::infinity();
#define CORTEX_16(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
    static constexpr float edges[3 * kLanes] = {CORTEX_16(-inf), CORTEX_16(0.0f), CORTEX_16(-inf)};
#undef CORTEX_16
    const int hidden_before = std::clamp(seen.begin - first_key, 0, kLanes);
    const int hidden_after = std::clamp(first_key + kLanes - seen.end, 0, kLanes);
    return load(edges + kLanes - hidden_before) + load(edges + kLanes + hidden_after);
}

// Turn a row's scores into weights, for keys from `first_key` (a block's first) on, of which the row sees some; keys
// of whole blocks that it does not see get weight 0, but are otherwise left out.
inline void weights_from_scores(float *scores, int num_keys, int first_key, Seen seen, float cap, Record record) {
    const int begin = std::max(seen.begin - first_key, 0) / kLanes * kLanes;
    const int end = std::min((seen.end - first_key + kLanes - 1) / kLanes * kLanes, num_keys);
    std::fill(scores, scores + begin, 0.0f);
    std::fill(scores + end, scores + num_keys, 0.0f);
    F16 largest = splat(-std::numeric_limits<float>::infinity());
    for (int key = begin; key < end; key += kLanes) {
        F16 x = load(scores + key);
        if (cap != 0.0f) x = softcap(x, cap);
        if (first_key + key < seen.begin || first_key + key + kLanes > seen.end) x = x + mask(seen, first_key + key);
        store(scores + key, x);
        largest = max(largest, x);
    }
    record.largest() = max_lane(largest);
    const F16 top = splat(record.largest());
    F16 total = zero();
    for (int key = begin; key < end; key += kLanes) {
        const F16 weight = exp(load(scores + key) - top);
        store(scores + key, weight);
        total = total + weight;
    }
    record.sum() = sum(total);
}

// Add a later span to what each of at most kLanes rows has.
inline void merge(const Record *into, const Record *span, int rows, int head_dim) {
    float before[kLanes] = {}, added[kLanes] = {}, largest[kLanes], keep[kLanes], add[kLanes];
    for (int row = 0; row < rows; ++row) before[row] = into[row].largest(), added[row] = span[row].largest();
    const F16 most = max(load(before), load(added));
    store(largest, most);
    store(keep, exp(load(before) - most));
    store(add, exp(load(added) - most));
    for (int row = 0; row < rows; ++row) {
        into[row].largest() = largest[row];
        into[row].sum() = into[row].sum() * keep[row] + span[row].sum() * add[row];
        float *values = into[row].values();
        const float *more = span[row].values();
        const F16 old_factor = splat(keep[row]), new_factor = splat(add[row]);
        for (int d = 0; d < head_dim; d += kLanes)
            store(values + d, fma(load(values + d), old_factor, load(more + d) * new_factor));
    }
}

// The row's result; `sink` is one more logit, or minus infinity.
inline void finish(Record record, float sink, int head_dim, float *out) {
    const float largest = std::max(record.largest(), sink);
    const float keep = exp(record.largest() - largest);
    const F16 factor = splat(keep / (record.sum() * keep + exp(sink - largest)));
    // Adding 0 makes zeros positive: a key of weight 0 in a tile may have turned a negative one.
    for (int d = 0; d < head_dim; d += kLanes) store(out + d, fma(load(record.values() + d), factor, zero()));
}

}  // namespace cortex
