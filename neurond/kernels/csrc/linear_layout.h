// Where a weight lies in a panel, and an input in a prepared row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

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
#else
using Int8Inputs = QuantisedInputs<std::int16_t>;  // products are made of pairs of them
#endif
#if defined(CORTEX_AVX512) || defined(CORTEX_AVX2)
using Int4Inputs = QuantisedInputs<std::int8_t>;
#else
using Int4Inputs = QuantisedInputs<std::int16_t>;
#endif

// Ask for `Bytes` bytes at `at` for the second cache; return where they end. There need not be such memory.
template <std::size_t Bytes>
inline const void *fetch(const void *at) {
    const auto *bytes = static_cast<const std::byte *>(at);
    for (std::size_t i = 0; i < Bytes; i += 64) __builtin_prefetch(bytes + i, 0, 2);
    return bytes + Bytes;
}

// Row r's group at x, for rows `stride` bytes apart.
template <class Inputs>
inline const Inputs &inputs_at(const std::byte *x, std::size_t stride, int r) {
    return *reinterpret_cast<const Inputs *>(x + static_cast<std::size_t>(r) * stride);
}

// Whether inputs are bytes. Groups that a byte is too short for have a second part, see prepare_row.
template <class Inputs>
constexpr bool kInTwoParts = std::is_base_of_v<QuantisedInputs<std::int8_t>, Inputs>;

// Where things lie in a prepared row, in bytes from its beginning: the groups; where they are in two parts, a bit for
// each group that has a second one, and the second parts of all groups, zero where the bit is.
template <class Inputs>
struct RowLayout {
    std::size_t groups;

    std::size_t bits() const { return (groups * sizeof(Inputs) + 7) / 8 * 8; }
    std::size_t words() const { return (groups + 63) / 64; }
    std::size_t second() const { return bits() + words() * sizeof(std::uint64_t); }
    std::size_t end() const { return (kInTwoParts<Inputs> ? second() : 0) + groups * sizeof(Inputs); }
};

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
