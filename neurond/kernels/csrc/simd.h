// Vectors of 16 lanes, the unit that every kernel is written in, over what the compiler was told to use.
//
// One source gives every variant: AVX-512 holds such a vector in one register, AVX2 in two, the portable
// variant leaves it to the compiler. Kernels that are bound by instructions may have a form of their own for a
// variant, behind CORTEX_AVX2 and the like, as long as each output element keeps its order of operations.
//
// Contraction is off for the whole library (-ffp-contract=off): where a product is added without rounding in
// between, `fma` says so, so that two instances of a template never differ in the last bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#define CORTEX_AVX2 1
#include <immintrin.h>
#endif

namespace cortex {

constexpr int kLanes = 16;

#ifdef CORTEX_AVX2

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
// 2^n for whole n in [-126, 127].
inline F16 exp2_whole(F16 n) {
    auto half = [](__m256 x) {
        const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
    };
    return {half(n.lo), half(n.hi)};
}

#else

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

inline float max_lane(F16 v) {
    float lanes[kLanes];
    store(lanes, v);
    float found = lanes[0];
    for (int i = 1; i < kLanes; ++i) found = lanes[i] > found ? lanes[i] : found;
    return found;
}

using bf16 = std::uint16_t;

inline float from_bf16(bf16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Nearest, ties to even; a NaN stays one.
inline bf16 to_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<bf16>((bits >> 16) | 0x40);
    return static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace cortex
