// Rows of inputs as products take them: rounded to bfloat16, or quantised in groups of 32.
//
// Where instructions multiply 16 bits at a time, inputs have 15. Where they multiply bytes, inputs have 8, and groups
// whose step is large for their row get a second product with the next 7 bits: a few groups hold most of the error.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "linear_layout.h"

namespace cortex {

constexpr float kByteSteps = 127.0f;
constexpr float kSecondSteps = 128.0f;  // of the second part in one of the first
// The largest step of a group without a second part, by the root mean square of its row.
constexpr float kCoarseStep = 0.05f;
// A group of smaller inputs counts as 0: what steps they make of one could be infinite.
constexpr float kLeastInput = 1e-30f;

inline void prepare_group(Bf16Inputs &inputs, const float *x) {
#ifdef CORTEX_AVX512
    store_rounded(inputs.x, load(x), load(x + kLanes));
#else
    for (int k = 0; k < kGroup; ++k) inputs.x[k] = from_bf16(to_bf16(x[k]));
#endif
}

struct Scaled {
    F16 first, second;  // in steps
    float step;
};

// A group in steps, `steps` of which are its largest magnitude.
inline Scaled scaled(const float *x, float steps) {
    const F16 first = load(x), second = load(x + kLanes);
    const float largest = max_lane(max(abs(first), abs(second)));
    // Where all is NaN, so is the step and what is made with it.
    const F16 inverse = splat(largest < kLeastInput ? 0.0f : steps / largest);
    return {first * inverse, second * inverse, largest / steps};
}

template <class Int>
inline void store_rounded(QuantisedInputs<Int> &inputs, const Scaled &at) {
    const F16 q0 = round(at.first), q1 = round(at.second);
    store_whole(inputs.q, q0);
    store_whole(inputs.q + kLanes, q1);
    // An input that is NaN or infinite has made the total NaN, which no integer can be; then the product has it.
    const float total = sum(q0 + q1);
    inputs.scale = at.step + 0.0f * total;
    inputs.sum = at.step * total;
}

#ifdef CORTEX_AVX512
inline void store_rounded(Int8Inputs &inputs, const Scaled &at) {
    store_rounded<std::int8_t>(inputs, at);
    inputs.offset_sum = -kInt8Offset * std::accumulate(inputs.q, inputs.q + kGroup, 0);
}
#endif

template <class Int>
inline void prepare_group(QuantisedInputs<Int> &inputs, const float *x) {
    store_rounded(inputs, scaled(x, kByteSteps * kSecondSteps));
}

// What rounding to whole steps leaves, in steps of the second part.
inline Scaled remainder(const Scaled &at) {
    const F16 finer = splat(kSecondSteps);
    return {(at.first - round(at.first)) * finer, (at.second - round(at.second)) * finer, at.step / kSecondSteps};
}

inline float root_mean_square(const float *x, int size) {
    F16 squares = zero();
    for (int i = 0; i < size; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
    return std::sqrt(sum(squares) / static_cast<float>(size));
}

template <class Inputs>
inline void prepare(int in_features, const float *x, std::byte *prepared) {
    const RowLayout<Inputs> row{static_cast<std::size_t>(in_features / kGroup)};
    auto *inputs = reinterpret_cast<Inputs *>(prepared);
    if constexpr (!kInTwoParts<Inputs>) {
        for (std::size_t g = 0; g < row.groups; ++g) prepare_group(inputs[g], x + g * kGroup);
    } else {
        auto *bits = reinterpret_cast<std::uint64_t *>(prepared + row.bits());
        auto *seconds = reinterpret_cast<Inputs *>(prepared + row.second());
        std::memset(bits, 0, row.end() - row.bits());
        const float coarsest = kCoarseStep * root_mean_square(x, in_features);
        for (std::size_t g = 0; g < row.groups; ++g) {
            const Scaled at = scaled(x + g * kGroup, kByteSteps);
            store_rounded(inputs[g], at);
            if (!(at.step > coarsest)) continue;
            bits[g / 64] |= std::uint64_t{1} << g % 64;
            store_rounded(seconds[g], remainder(at));
        }
    }
}

}  // namespace cortex
