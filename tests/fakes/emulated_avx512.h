/* The intrinsics of AVX-512 that the kernels use, emulated by SIMDe (https://github.com/simd-everywhere/simde) on any
 * processor, so that what no machine at hand can run is tested nevertheless. SIMDe 0.7.4, which Debian 12 has, lacks a
 * few: they are made of AVX2's. */
#pragma once

#include <simde/x86/avx512/abs.h>
#include <simde/x86/avx512/add.h>
#include <simde/x86/avx512/and.h>
#include <simde/x86/avx512/cast.h>
#include <simde/x86/avx512/cmp.h>
#include <simde/x86/avx512/cvts.h>
#include <simde/x86/avx512/div.h>
#include <simde/x86/avx512/dpbf16.h>
#include <simde/x86/avx512/dpbusd.h>
#include <simde/x86/avx512/dpwssd.h>
#include <simde/x86/avx512/fmadd.h>
#include <simde/x86/avx512/loadu.h>
#include <simde/x86/avx512/max.h>
#include <simde/x86/avx512/min.h>
#include <simde/x86/avx512/mov.h>
#include <simde/x86/avx512/mul.h>
#include <simde/x86/avx512/roundscale.h>
#include <simde/x86/avx512/scalef.h>
#include <simde/x86/avx512/set1.h>
#include <simde/x86/avx512/setzero.h>
#include <simde/x86/avx512/slli.h>
#include <simde/x86/avx512/srli.h>
#include <simde/x86/avx512/storeu.h>
#include <simde/x86/avx512/sub.h>

/* By name and not by SIMDe's own aliases, which declare types that the compiler's headers have, too. */
#define __m512 simde__m512
#define __m512i simde__m512i
#define __m512bh simde__m512bh
#define _mm512_abs_ps simde_mm512_abs_ps
#define _mm512_add_epi32 simde_mm512_add_epi32
#define _mm512_add_ps simde_mm512_add_ps
#define _mm512_and_si512 simde_mm512_and_si512
#define _mm512_castsi512_ps simde_mm512_castsi512_ps
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask simde_mm512_cmp_ps_mask
#define _mm512_cvtsepi32_epi16 simde_mm512_cvtsepi32_epi16
#define _mm512_cvtsepi32_epi8 simde_mm512_cvtsepi32_epi8
#define _mm512_div_ps simde_mm512_div_ps
#define _mm512_fmadd_ps simde_mm512_fmadd_ps
#define _mm512_loadu_ps simde_mm512_loadu_ps
#define _mm512_loadu_si512 simde_mm512_loadu_si512
#define _mm512_maskz_mov_ps simde_mm512_maskz_mov_ps
#define _mm512_max_ps simde_mm512_max_ps
#define _mm512_min_ps simde_mm512_min_ps
#define _mm512_mul_ps simde_mm512_mul_ps
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps simde_mm512_roundscale_ps
#define _mm512_scalef_ps simde_mm512_scalef_ps
#define _mm512_set1_epi32 simde_mm512_set1_epi32
#define _mm512_set1_epi8 simde_mm512_set1_epi8
#define _mm512_set1_ps simde_mm512_set1_ps
#define _mm512_setzero_ps simde_mm512_setzero_ps
#define _mm512_setzero_si512 simde_mm512_setzero_si512
#define _mm512_slli_epi32 simde_mm512_slli_epi32
#define _mm512_srli_epi16 simde_mm512_srli_epi16
#define _mm512_storeu_ps simde_mm512_storeu_ps
#define _mm512_storeu_si512 simde_mm512_storeu_si512
#define _mm512_sub_ps simde_mm512_sub_ps

#define _mm512_cvtepi8_epi16 emulated_cvtepi8_epi16
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps_pbh
#define _mm512_cvtneps_pbh emulated_cvtneps_pbh
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_dpbf16_ps emulated_dpbf16_ps
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
#define _mm512_dpwssd_epi32 emulated_dpwssd_epi32
#define _mm512_rcp14_ps emulated_rcp14_ps
#define _mm512_reduce_max_ps emulated_reduce_max_ps
#undef _mm512_reduce_ps
#define _mm512_reduce_ps emulated_reduce_ps

/* Not inlined: each is dozens of instructions, and a tile has a hundred of them. */
[[gnu::noinline]] static __m512 emulated_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
    return simde_mm512_dpbf16_ps(sum, a, b);
}
[[gnu::noinline]] static __m512i emulated_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
    return simde_mm512_dpbusd_epi32(sum, a, b);
}
[[gnu::noinline]] static __m512i emulated_dpwssd_epi32(__m512i sum, __m512i a, __m512i b) {
    return simde_mm512_dpwssd_epi32(sum, a, b);
}

static inline __m512i emulated_cvtepi8_epi16(__m256i a) {
    simde__m512i_private to;
    to.m256i[0] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(a));
    to.m256i[1] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(a, 1));
    return simde__m512i_from_private(to);
}
static inline __m512 emulated_cvtepi32_ps(__m512i a) {
    simde__m512_private to;
    const simde__m512i_private from = simde__m512i_to_private(a);
    for (int i = 0; i < 2; ++i) to.m256[i] = _mm256_cvtepi32_ps(from.m256i[i]);
    return simde__m512_from_private(to);
}
static inline __m512i emulated_cvtps_epi32(__m512 a) {
    simde__m512i_private to;
    const simde__m512_private from = simde__m512_to_private(a);
    for (int i = 0; i < 2; ++i) to.m256i[i] = _mm256_cvtps_epi32(from.m256[i]);
    return simde__m512i_from_private(to);
}
static inline __m512i emulated_cvtepu16_epi32(__m256i a) {
    simde__m512i_private to;
    to.m256i[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
    to.m256i[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1));
    return simde__m512i_from_private(to);
}
static inline __m512 emulated_cvtph_ps(__m256i a) {
    simde__m512_private to;
    to.m256[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
    to.m256[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
    return simde__m512_from_private(to);
}
/* To nearest, a NaN stays one; what is below 2^-126 becomes 0. `a` gives the upper half. */
static inline __m512bh emulated_cvtne2ps_pbh(__m512 a, __m512 b) {
    const simde__m512_private from[2] = {simde__m512_to_private(b), simde__m512_to_private(a)};
    simde__m512bh_private to;
    for (int i = 0; i < 32; ++i) {
        unsigned bits;
        __builtin_memcpy(&bits, &from[i / 16].f32[i % 16], sizeof bits);
        const unsigned magnitude = bits & 0x7fffffff;
        if (magnitude < 0x00800000) bits &= 0x80000000;
        const unsigned rounded = magnitude > 0x7f800000 ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
        to.u16[i] = (unsigned short)(rounded >> 16);
    }
    return simde__m512bh_from_private(to);
}
static inline __m256i emulated_cvtneps_pbh(__m512 a) {
    const simde__m512bh_private both = simde__m512bh_to_private(emulated_cvtne2ps_pbh(a, a));
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(&both));
}
/* The processor's is within 2^-14 of it. */
static inline __m512 emulated_rcp14_ps(__m512 a) { return simde_mm512_div_ps(simde_mm512_set1_ps(1.0f), a); }
static inline float emulated_reduce_max_ps(__m512 a) {
    const simde__m512_private from = simde__m512_to_private(a);
    float most = from.f32[0];
    for (int i = 1; i < 16; ++i) most = from.f32[i] > most ? from.f32[i] : most;
    return most;
}
/* What is left of each number when the nearest whole one is taken off; of an infinite one 0. */
static inline __m512 emulated_reduce_ps(__m512 a, int) {
    simde__m512_private v = simde__m512_to_private(a);
    for (int i = 0; i < 16; ++i)
        v.f32[i] = __builtin_isinf(v.f32[i]) ? 0.0f : v.f32[i] - __builtin_nearbyintf(v.f32[i]);
    return simde__m512_from_private(v);
}
