// Products of one group of packed integers with the inputs of R rows, the sums exact in int32.
//
// Each variant of the library has its own; all else about a product is shared.
#pragma once

#include "linear_layout.h"

namespace cortex {

#ifdef CORTEX_AVX2

template <class Int>
inline __m256i broadcast_4_bytes(const Int *p) {
    std::int32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _mm256_set1_epi32(bits);
}

// Add to a sum that stays in its register: left to itself the compiler regroups a chain of integer additions
// into a tree, for which there are not registers enough.
inline __m256i pinned(__m256i sum) {
    asm("" : "+x"(sum));
    return sum;
}

template <int R>
inline void dot(const Int8Group &w, const std::byte *x, std::size_t stride, I16 (&sums)[R]) {
    const __m128i *q = reinterpret_cast<const __m128i *>(w.q);
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    CORTEX_UNROLL
    for (int k = 0; k < kGroup; k += 2, q += 2) {
        const __m256i lo = _mm256_cvtepi8_epi16(_mm_loadu_si128(q));
        const __m256i hi = _mm256_cvtepi8_epi16(_mm_loadu_si128(q + 1));
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256i pair = broadcast_4_bytes(inputs_at<Int8Inputs>(x, stride, r).q + k);
            sums[r].lo = pinned(_mm256_add_epi32(sums[r].lo, _mm256_madd_epi16(lo, pair)));
            sums[r].hi = pinned(_mm256_add_epi32(sums[r].hi, _mm256_madd_epi16(hi, pair)));
        }
    }
}

// Eight products of two, each at most 2 * 15 * 127 in magnitude, fit int16.
template <int R>
inline void dot(const Int4Group &w, const std::byte *x, std::size_t stride, I16 (&sums)[R]) {
    const __m256i *q = reinterpret_cast<const __m256i *>(w.q);
    const __m256i low_half = _mm256_set1_epi8(15);
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    auto add = [&](__m256i lo, __m256i hi, int k) {
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256i four = broadcast_4_bytes(inputs_at<Int4Inputs>(x, stride, r).q + k);
            sums[r].lo = pinned(_mm256_add_epi16(sums[r].lo, _mm256_maddubs_epi16(lo, four)));
            sums[r].hi = pinned(_mm256_add_epi16(sums[r].hi, _mm256_maddubs_epi16(hi, four)));
        }
    };
    CORTEX_UNROLL
    for (int k = 0; k < kGroup; k += 8, q += 2) {
        const __m256i lo = _mm256_loadu_si256(q), hi = _mm256_loadu_si256(q + 1);
        add(_mm256_and_si256(lo, low_half), _mm256_and_si256(hi, low_half), k);
        add(_mm256_and_si256(_mm256_srli_epi16(lo, 4), low_half),
            _mm256_and_si256(_mm256_srli_epi16(hi, 4), low_half), k + 4);
    }
    const __m256i ones = _mm256_set1_epi16(1);
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r)
        sums[r] = {_mm256_madd_epi16(sums[r].lo, ones), _mm256_madd_epi16(sums[r].hi, ones)};
}

#else

template <int R>
inline void dot(const Int8Group &w, const std::byte *x, std::size_t stride, I16 (&sums)[R]) {
    for (int r = 0; r < R; ++r) {
        const std::int16_t *q = inputs_at<Int8Inputs>(x, stride, r).q;
        sums[r] = {};
        for (int k = 0; k < kGroup; ++k)
            for (int n = 0; n < kLanes; ++n) sums[r].v[n] += w.q[k * kLanes + n] * q[k];
    }
}

template <int R>
inline void dot(const Int4Group &w, const std::byte *x, std::size_t stride, I16 (&sums)[R]) {
    for (int r = 0; r < R; ++r) {
        const std::int16_t *q = inputs_at<Int4Inputs>(x, stride, r).q;
        sums[r] = {};
        for (int k = 0; k < kGroup; ++k)
            for (int n = 0; n < kLanes; ++n) {
                const Nibble at = nibble(k * kLanes + n);
                sums[r].v[n] += (w.q[at.byte] >> at.shift & 15) * q[k];
            }
    }
}

#endif

}  // namespace cortex
