// Where a weight lies in a panel, and an input in a prepared row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi.h"
#include "simd.h"

// On loops whose arrays belong in registers: the compiler keeps them in memory unless it unrolls before it looks.
#define CORTEX_UNROLL _Pragma("GCC unroll 16")

namespace cortex {

constexpr int kGroup = CORTEX_GROUP;

// Consecutive inputs of one output that lie side by side: what one multiplying instruction adds up in a lane.
#if defined(CORTEX_AVX512)
constexpr int kInt8Run = 4;
constexpr int kInt4Run = 4;
#elif defined(CORTEX_AVX2)
constexpr int kInt8Run = 2;
constexpr int kInt4Run = 4;
#else
constexpr int kInt8Run = 1;
constexpr int kInt4Run = 1;
#endif
constexpr int kBf16Run = 2;

#ifdef CORTEX_AVX512
using Int8Weight = std::uint8_t;  // products are made of unsigned and signed bytes
constexpr int kInt8Offset = 128;
#else
using Int8Weight = std::int8_t;
constexpr int kInt8Offset = 0;
#endif

// Index of the weight of input k and output n within a panel of 16 outputs, or within a group of it.
template <int Run>
constexpr int element(int k, int n) {
    return (k / Run * kLanes + n) * Run + k % Run;
}

struct Bf16Group {
    bf16 w[kGroup * kLanes];
};
struct Int8Group {
    Int8Weight q[kGroup * kLanes];  // the weight plus kInt8Offset
    half scale[kLanes];
};
struct Int4Group {
    std::uint8_t q[kGroup * kLanes / 2];  // of each 128 elements the first 64 in the low halves
    half scale[kLanes];
    half minimum[kLanes];
};

struct Nibble {
    int byte, shift;
};
constexpr Nibble nibble(int element) { return {element / 128 * 64 + element % 64, element / 64 % 2 * 4}; }

// A group of 32 inputs as prepare_row leaves it.
struct Bf16Inputs {
#ifdef CORTEX_AVX512
    bf16 x[kGroup];
#else
    float x[kGroup];  // rounded to bfloat16
#endif
};
template <class Int>
struct QuantisedInputs {
    Int q[kGroup];
    float scale;
    float sum;  // scale times the sum of q
};
#if defined(CORTEX_AVX512)
struct Int8Inputs : QuantisedInputs<std::int8_t> {
    std::int32_t offset_sum;  // minus kInt8Offset times the sum of q: takes the weights' offset out of a product
};
#elif defined(CORTEX_AVX2)
using Int8Inputs = QuantisedInputs<std::int16_t>;  // products are made of int16 pairs
#else
using Int8Inputs = QuantisedInputs<std::int8_t>;
#endif
using Int4Inputs = QuantisedInputs<std::int8_t>;

// Row r's group at x, for rows `stride` bytes apart.
template <class Inputs>
inline const Inputs &inputs_at(const std::byte *x, std::size_t stride, int r) {
    return *reinterpret_cast<const Inputs *>(x + static_cast<std::size_t>(r) * stride);
}

struct Bf16Format {
    using Group = Bf16Group;
    using Inputs = Bf16Inputs;
};
struct Int8Format {
    using Group = Int8Group;
    using Inputs = Int8Inputs;
};
struct Int4Format {
    using Group = Int4Group;
    using Inputs = Int4Inputs;
};

// Call f with the format's type.
template <class F>
auto with_format(int format, F &&f) {
    if (format == CORTEX_INT8) return f(Int8Format{});
    if (format == CORTEX_INT4) return f(Int4Format{});
    return f(Bf16Format{});
}

}  // namespace cortex
