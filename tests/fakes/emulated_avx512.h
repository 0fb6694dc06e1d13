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
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_dpbf16_ps emulated_dpbf16_ps
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
#define _mm512_dpwssd_epi32 emulated_dpwssd_epi32

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
