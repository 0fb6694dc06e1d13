// Groups of 32 weights of one output to integers, so that weights that were quantised already are met exactly.
#pragma once

#include <algorithm>
#include <cstdint>

#include "linear_layout.h"

namespace cortex {

// What scale * q + minimum can express for whole q in [low, high]; scale and minimum are float16 numbers.
struct Grid {
    float scale, minimum, low, high;
};

struct Fit {
    Grid grid;
    float q[kGroup];
    float error;  // sum of squares
};

inline Fit fit(const float *w, Grid grid) {
    Fit found{grid, {}, 0.0f};
    const F16 scale = splat(grid.scale), minimum = splat(grid.minimum);
    const F16 inverse = splat(grid.scale == 0.0f ? 0.0f : 1.0f / grid.scale);
    F16 error = zero();
    for (int k = 0; k < kGroup; k += kLanes) {
        const F16 at = load(w + k);
        const F16 q = min(max(round((at - minimum) * inverse), splat(grid.low)), splat(grid.high));
        const F16 difference = at - fma(scale, q, minimum);
        error = fma(difference, difference, error);
        store(found.q + k, q);
    }
    found.error = sum(error);
    return found;
}

inline Grid int4_grid(float scale, float minimum) {
    return {from_half(to_half(scale)), from_half(to_half(minimum)), 0.0f, 15.0f};
}

// The scale and minimum of least squares for the integers of `found`.
inline Grid refitted(const float *w, const Fit &found) {
    float q_sum = 0, w_sum = 0, qq_sum = 0, qw_sum = 0;
    for (int k = 0; k < kGroup; ++k) {
        q_sum += found.q[k];
        w_sum += w[k];
        qq_sum += found.q[k] * found.q[k];
        qw_sum += found.q[k] * w[k];
    }
    const float spread = kGroup * qq_sum - q_sum * q_sum;
    if (spread == 0.0f) return found.grid;
    const float scale = (kGroup * qw_sum - q_sum * w_sum) / spread;
    return int4_grid(scale, (w_sum - scale * q_sum) / kGroup);
}

inline Fit fit_int8(const float *w) {
    const float largest = max_lane(max(abs(load(w)), abs(load(w + kLanes))));
    return fit(w, {from_half(to_half(largest / 127.0f)), 0.0f, -127.0f, 127.0f});
}

// The first of the grids with the least error: from the least to the greatest weight (GGUF's Q4_1), those of
// d * (q - 8) whose end is the weight of largest magnitude (Q4_0), those that leave integers at the ends unused (a
// group of Q4_K has its scale and minimum from a larger block), and the best of them adjusted.
inline Fit fit_int4(const float *w) {
    const auto [least, greatest] = std::minmax_element(w, w + kGroup);
    const float range = *greatest - *least, eighth = std::max(-*least, *greatest) / 8.0f;
    Fit best = fit(w, int4_grid(range / 15.0f, *least));
    auto consider = [&](Grid grid) {
        if (best.error == 0.0f) return;
        const Fit other = fit(w, grid);
        if (other.error < best.error) best = other;
    };
    consider(int4_grid(eighth, -8.0f * eighth));
    consider(int4_grid(-eighth, 8.0f * eighth));
    for (int steps = 14; steps > 0; --steps) consider(int4_grid(range / static_cast<float>(steps), *least));
    for (int turn = 0; turn < 2; ++turn) consider(refitted(w, best));
    return best;
}

// Store output n of a group.
inline void pack_group(Bf16Group &group, int n, const float *w) {
    for (int k = 0; k < kGroup; ++k) group.w[element<kBf16Run>(k, n)] = to_bf16(w[k]);
}

inline void pack_group(Int8Group &group, int n, const float *w) {
    const Fit found = fit_int8(w);
    group.scale[n] = to_half(found.grid.scale);
    for (int k = 0; k < kGroup; ++k)
        group.q[element<kInt8Run>(k, n)] = static_cast<Int8Weight>(static_cast<int>(found.q[k]) + kInt8Offset);
}

inline void pack_group(Int4Group &group, int n, const float *w) {
    const Fit found = fit_int4(w);
    group.scale[n] = to_half(found.grid.scale);
    group.minimum[n] = to_half(found.grid.minimum);
    for (int k = 0; k < kGroup; ++k) {
        const Nibble at = nibble(element<kInt4Run>(k, n));
        const int other = group.q[at.byte] & (0xf0 >> at.shift);
        group.q[at.byte] = static_cast<std::uint8_t>(other | static_cast<int>(found.q[k]) << at.shift);
    }
}

// Load output n of a group.
inline void unpack_group(const Bf16Group &group, int n, float *w) {
    for (int k = 0; k < kGroup; ++k) w[k] = from_bf16(group.w[element<kBf16Run>(k, n)]);
}

inline void unpack_group(const Int8Group &group, int n, float *w) {
    const float scale = from_half(group.scale[n]);
    for (int k = 0; k < kGroup; ++k) w[k] = scale * (group.q[element<kInt8Run>(k, n)] - kInt8Offset);
}

inline void unpack_group(const Int4Group &group, int n, float *w) {
    const float scale = from_half(group.scale[n]), minimum = from_half(group.minimum[n]);
    for (int k = 0; k < kGroup; ++k) {
        const Nibble at = nibble(element<kInt4Run>(k, n));
        w[k] = scale * (group.q[at.byte] >> at.shift & 15) + minimum;
    }
}

}  // namespace cortex
