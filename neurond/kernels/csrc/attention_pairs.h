// Sums of two products of small integers in each of 16 lanes, exact in int32: what int8 keys and values are
// multiplied with.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace cortex {

#if defined(CORTEX_AVX512)

struct Pairs {  // 16 pairs of int16
    __m512i v;
};
inline Pairs load_pairs(const std::int8_t *p) {
    return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)))};
}
inline I16 add_products(I16 sum, Pairs pairs, const std::int16_t *pair) {
    std::int32_t bits;
    std::memcpy(&bits, pair, sizeof bits);
    return {_mm512_dpwssd_epi32(sum.v, pairs.v, _mm512_set1_epi32(bits))};
}
inline I16 no_sum() { return {_mm512_setzero_si512()}; }
inline I16 load(const std::int32_t *p) { return {_mm512_loadu_si512(p)}; }
inline void store(std::int32_t *p, I16 a) { _mm512_storeu_si512(p, a.v); }

#elif defined(CORTEX_AVX2)

struct Pairs {
    __m256i lo, hi;
};
inline Pairs load_pairs(const std::int8_t *p) {
    const __m128i *at = reinterpret_cast<const __m128i *>(p);
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), _mm256_cvtepi8_epi16(_mm_loadu_si128(at + 1))};
}
inline I16 add_products(I16 sum, Pairs pairs, const std::int16_t *pair) {
    std::int32_t bits;
    std::memcpy(&bits, pair, sizeof bits);
    const __m256i both = _mm256_set1_epi32(bits);
    sum.lo = _mm256_add_epi32(sum.lo, _mm256_madd_epi16(pairs.lo, both));
    sum.hi = _mm256_add_epi32(sum.hi, _mm256_madd_epi16(pairs.hi, both));
    // The sums stay in their registers: left to itself the compiler regroups chains of integer additions into trees.
    asm("" : "+x"(sum.lo), "+x"(sum.hi));
    return sum;
}
inline I16 no_sum() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I16 load(const std::int32_t *p) {
    const __m256i *at = reinterpret_cast<const __m256i *>(p);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
inline void store(std::int32_t *p, I16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p) + 1, a.hi);
}

#else

struct Pairs {
    const std::int8_t *at;
};
inline Pairs load_pairs(const std::int8_t *p) { return {p}; }
inline I16 add_products(I16 sum, Pairs pairs, const std::int16_t *pair) {
    for (int i = 0; i < kLanes; ++i) sum.v[i] += pairs.at[2 * i] * pair[0] + pairs.at[2 * i + 1] * pair[1];
    return sum;
}
inline I16 no_sum() { return {}; }
inline I16 load(const std::int32_t *p) {
    I16 a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
}
inline void store(std::int32_t *p, I16 a) { std::memcpy(p, a.v, sizeof a.v); }

#endif

}  // namespace cortex
