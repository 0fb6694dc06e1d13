// One row of logits as sampling reads it: in blocks of which the largest value is known after the first scan, so
// that later passes skip what is below their bound. Weights are not kept but computed again, in every pass with
// the same operations.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "approx.h"
#include "simd.h"

namespace cortex {

constexpr int kBlock = 128;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();  // of the finite ones

struct Row {
    const float *values;
    int count;

    int blocks() const { return (count + kBlock - 1) / kBlock; }

    // The values of a block; a last one that is not full is filled up with -inf, in `spare`.
    const float *block(int index, float *spare) const {
        const float *start = values + static_cast<std::size_t>(index) * kBlock;
        const int left = count - index * kBlock;
        if (left >= kBlock) return start;
        std::fill(std::copy(start, start + left, spare), spare + kBlock, -kInfinity);
        return spare;
    }
};

// Return the largest value and that of each block in `peaks`; NaN where any value is NaN or +inf.
inline float scan(const Row &row, float *peaks) {
    float spare[kBlock], highest = -kInfinity;
    F16 broken = zero();
    for (int b = 0; b < row.blocks(); ++b) {
        const float *x = row.block(b, spare);
        F16 peak = splat(-kInfinity);
        for (int i = 0; i < kBlock; i += kLanes) {
            const F16 v = load(x + i);
            peak = max(v, peak);                                  // of a NaN and a number, the second operand
            broken = fma(max(splat(kLowest), v), zero(), broken);  // -inf is no fault
        }
        peaks[b] = max_lane(peak);
        highest = std::max(highest, peaks[b]);
    }
    return sum(broken) == 0.0f ? highest : std::numeric_limits<float>::quiet_NaN();
}

inline int first_of(const Row &row, const float *peaks, float highest) {
    const int b = static_cast<int>(std::find(peaks, peaks + row.blocks(), highest) - peaks);
    const float *start = row.values + static_cast<std::size_t>(b) * kBlock;
    return static_cast<int>(std::find(start, row.values + row.count, highest) - row.values);
}

// How a logit becomes a weight: exp((logit - highest) / temperature) from `floor` on, below it 0.
struct Weighing {
    static constexpr float kSmallestTemperature = 1e-30f;  // its inverse is finite, and only the highest have weight
    static constexpr float kDepth = 86.0f;  // exp(-kDepth) is a normal number, and no draw can tell it from 0

    float highest, temperature, sharpness, floor;

    Weighing(float highest, float temperature)
        : highest(highest),
          temperature(std::max(temperature, kSmallestTemperature)),
          sharpness(1.0f / this->temperature),
          floor(std::max(kLowest, highest - kDepth * this->temperature)) {}

    // The logit whose weight is `ratio` of the highest's.
    float at_ratio(float ratio) const { return highest + std::log(ratio) * temperature; }

    F16 operator()(F16 x) const {
        const F16 power = max((x - splat(highest)) * splat(sharpness), splat(-kDepth - 1.0f));
        return where_at_least(x, floor, exp(power));
    }
};

// In float32 within the block: 8 terms a lane, which rounds by no more than the weights themselves are.
inline double sum_block(const float *x, const Weighing &weighing) {
    F16 sums = zero();
    for (int i = 0; i < kBlock; i += kLanes) sums = sums + weighing(load(x + i));
    return static_cast<double>(sum(sums));
}

// Return the sum of all weights, and that of each block in `masses`.
inline double weigh(const Row &row, const float *peaks, const Weighing &weighing, double *masses) {
    float spare[kBlock];
    double total = 0.0;
    for (int b = 0; b < row.blocks(); ++b) {
        masses[b] = peaks[b] < weighing.floor ? 0.0 : sum_block(row.block(b, spare), weighing);
        total += masses[b];
    }
    return total;
}

// Return the first token of block `b` whose weight and those before it exceed `target`.
inline int find_in_block(const Row &row, int b, const Weighing &weighing, double target) {
    float spare[kBlock], weights[kBlock];
    const float *x = row.block(b, spare);
    for (int i = 0; i < kBlock; i += kLanes) store(weights + i, weighing(load(x + i)));
    int found = 0;
    double cumulative = 0.0;
    for (int i = 0; i < kBlock && cumulative <= target; ++i) {
        if (weights[i] > 0.0f) found = i;  // the last one where rounding leaves the target beyond the block
        cumulative += static_cast<double>(weights[i]);
    }
    return b * kBlock + found;
}

// Return the token at the share `draw`, in [0, 1), of the cumulative distribution in order of ids.
inline int find_share(const Row &row, const Weighing &weighing, const double *masses, double total, double draw) {
    const double target = total * draw;
    double before = 0.0;
    int b = 0;
    while (before + masses[b] <= target) before += masses[b++];
    return find_in_block(row, b, weighing, target - before);
}

}  // namespace cortex
