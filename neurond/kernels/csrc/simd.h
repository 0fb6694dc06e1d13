// Vectors of 16 lanes, the unit that every kernel is written in, over what the compiler was told to use.
//
// One source gives every variant: AVX-512 holds such a vector in one register (simd_avx512.h), AVX2 in two, the
// portable variant leaves it to the compiler. AMX's is AVX-512's, with products in tiles (tiles.h). Kernels that are
// bound by instructions may have a form of their own for a variant, behind CORTEX_AMX, CORTEX_AVX512 and CORTEX_AVX2,
// as long as each output element keeps its order of operations.
//
// Contraction is off for the whole library (-ffp-contract=off): where a product is added without rounding in
// between, `fma` says so, so that two instances of a template never differ in the last bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace cortex {

constexpr int kLanes = 16;

using bf16 = std::uint16_t;

inline float from_bf16(bf16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
using half = std::uint16_t;  // IEEE binary16

}  // namespace cortex

#if defined(CORTEX_INTRINSICS) || (defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512BW__) && \
                                   defined(__AVX512DQ__) && defined(__AVX512VL__))
#define CORTEX_AVX512 1
#include "simd_avx512.h"
#if defined(CORTEX_TILES) || (defined(__AMX_TILE__) && defined(__AMX_BF16__))
#define CORTEX_AMX 1  // tiles.h
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define CORTEX_AVX2 1
#include <immintrin.h>
#endif

namespace cortex {

#if defined(CORTEX_AVX2)

struct F16 {
    __m256 lo, hi;
};

inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float *p, F16 v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}
inline F16 operator+(F16 a, F16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F16 operator-(F16 a, F16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F16 operator*(F16 a, F16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F16 operator/(F16 a, F16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
// a * b + c with one rounding.
inline F16 fma(F16 a, F16 b, F16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F16 max(F16 a, F16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F16 min(F16 a, F16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F16 abs(F16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline F16 round(F16 a) {  // to nearest, ties to even
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
// 2^n for whole n in [-126, 127]; 0 for -127.
inline F16 exp2_whole(F16 n) {
    auto each = [](__m256 x) {
        const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
    };
    return {each(n.lo), each(n.hi)};
}
inline F16 load_half(const half *p) {
    const __m128i *at = reinterpret_cast<const __m128i *>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}

struct I16 {  // int32 lanes
    __m256i lo, hi;
};
inline F16 to_float(I16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

// Whole numbers of the type's range, as integers.
inline void store_whole(std::int16_t *p, F16 v) {
    const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline void store_whole(std::int8_t *p, F16 v) {
    std::int16_t wide[kLanes];
    store_whole(wide, v);
    const __m128i *at = reinterpret_cast<const __m128i *>(wide);
    const __m128i packed = _mm_packs_epi16(_mm_loadu_si128(at), _mm_loadu_si128(at + 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), packed);
}

inline F16 load_bf16(const bf16 *p) {
    auto each = [](const bf16 *at) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i *>(at));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    };
    return {each(p), each(p + 8)};
}
// Of 16 pairs that lie side by side the first numbers (load_even), and the second ones (load_odd).
inline F16 load_even(const bf16 *p) {
    const __m256i *at = reinterpret_cast<const __m256i *>(p);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(at), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(at + 1), 16))};
}
inline F16 load_odd(const bf16 *p) {
    const __m256i *at = reinterpret_cast<const __m256i *>(p);
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(at), upper)),
            _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(at + 1), upper))};
}

// `value` where x >= floor, else 0.
inline F16 where_at_least(F16 x, float floor, F16 value) {
    const __m256 bound = _mm256_set1_ps(floor);
    return {_mm256_and_ps(_mm256_cmp_ps(x.lo, bound, _CMP_GE_OQ), value.lo),
            _mm256_and_ps(_mm256_cmp_ps(x.hi, bound, _CMP_GE_OQ), value.hi)};
}

#elif !defined(CORTEX_AVX512)

struct F16 {
    float v[kLanes];
};

#define CORTEX_EACH(expression)                     \
    F16 r;                                          \
    for (int i = 0; i < kLanes; ++i) r.v[i] = (expression); \
    return r
inline F16 splat(float x) { CORTEX_EACH(x); }
inline F16 zero() { return splat(0.0f); }
inline F16 load(const float *p) { CORTEX_EACH(p[i]); }
inline void store(float *p, F16 a) { std::memcpy(p, a.v, sizeof a.v); }
inline F16 operator+(F16 a, F16 b) { CORTEX_EACH(a.v[i] + b.v[i]); }
inline F16 operator-(F16 a, F16 b) { CORTEX_EACH(a.v[i] - b.v[i]); }
inline F16 operator*(F16 a, F16 b) { CORTEX_EACH(a.v[i] * b.v[i]); }
inline F16 operator/(F16 a, F16 b) { CORTEX_EACH(a.v[i] / b.v[i]); }
// a * b + c; without the instruction it rounds twice, everywhere alike.
inline F16 fma(F16 a, F16 b, F16 c) { CORTEX_EACH(a.v[i] * b.v[i] + c.v[i]); }
inline F16 max(F16 a, F16 b) { CORTEX_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F16 min(F16 a, F16 b) { CORTEX_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F16 abs(F16 a) { CORTEX_EACH(std::fabs(a.v[i])); }
inline F16 round(F16 a) { CORTEX_EACH(std::nearbyint(a.v[i])); }
inline F16 exp2_whole(F16 n) {
    F16 r;
    for (int i = 0; i < kLanes; ++i) {
        const std::int32_t bits = (static_cast<std::int32_t>(n.v[i]) + 127) << 23;
        std::memcpy(&r.v[i], &bits, sizeof bits);
    }
    return r;
}
inline F16 load_half(const half *p) {
    // The exponents' biases differ by 112; the product also makes subnormal numbers normal.
    F16 r;
    for (int i = 0; i < kLanes; ++i) {
        const std::uint32_t magnitude = (p[i] & 0x7fffu) << 13, sign = (p[i] & 0x8000u) << 16;
        std::memcpy(&r.v[i], &magnitude, sizeof magnitude);
        r.v[i] *= 0x1p112f;
        std::uint32_t bits;
        std::memcpy(&bits, &r.v[i], sizeof bits);
        bits |= sign;
        std::memcpy(&r.v[i], &bits, sizeof bits);
    }
    return r;
}

struct I16 {  // int32 lanes
    std::int32_t v[kLanes];
};
inline F16 to_float(I16 a) { CORTEX_EACH(static_cast<float>(a.v[i])); }

// Whole numbers of the type's range, as integers; of a NaN any.
template <class Int>
inline void store_whole(Int *p, F16 a) {
    const F16 low = splat(std::numeric_limits<Int>::min()), high = splat(std::numeric_limits<Int>::max());
    const F16 whole = max(min(a, high), low);  // what is no number is `high` then, and can be converted
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<Int>(whole.v[i]);
}
inline F16 load_bf16(const bf16 *p) { CORTEX_EACH(from_bf16(p[i])); }
inline F16 load_even(const bf16 *p) { CORTEX_EACH(from_bf16(p[2 * i])); }
inline F16 load_odd(const bf16 *p) { CORTEX_EACH(from_bf16(p[2 * i + 1])); }
inline F16 where_at_least(F16 x, float floor, F16 value) { CORTEX_EACH(x.v[i] >= floor ? value.v[i] : 0.0f); }
#undef CORTEX_EACH

#endif

// Sum of the lanes, in one fixed order: halves are added until one is left.
inline float sum(F16 v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int width = kLanes / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
}

#ifndef CORTEX_AVX512
inline float max_lane(F16 v) {
    float lanes[kLanes];
    store(lanes, v);
    float found = lanes[0];
    for (int i = 1; i < kLanes; ++i) found = lanes[i] > found ? lanes[i] : found;
    return found;
}
#endif

// Nearest, ties to even; a NaN stays one.
inline bf16 to_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<bf16>((bits >> 16) | 0x40);
    return static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_half(half x) {
    const half lanes[kLanes] = {x};
    float values[kLanes];
    store(values, load_half(lanes));
    return values[0];
}

// Nearest, ties to even; what is too large, infinities and NaN included, becomes the largest number.
inline half to_half(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t sign = (bits >> 16) & 0x8000;
    bits &= 0x7fffffff;
    if (bits >= 0x477fe000) return static_cast<half>(sign | 0x7bff);
    if (bits < 0x38800000) {  // subnormal: a float's last digit at 0.5 is 2^-24, as theirs
        const float shifted = std::fabs(x) + 0.5f;
        std::memcpy(&bits, &shifted, sizeof bits);
        return static_cast<half>(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + ((bits >> 13) & 1);
    return static_cast<half>(sign | ((bits - 0x38000000) >> 13));
}

}  // namespace cortex
