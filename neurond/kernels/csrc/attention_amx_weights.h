// What scores become for AMX: weights in bfloat16.
#pragma once

#include <cstdint>

#include "approx_rounded.h"
#include "attention_softmax.h"
#include "simd.h"

namespace cortex {

inline void copy_row(const bf16 *from, bf16 *to) { _mm512_storeu_si512(to, _mm512_loadu_si512(from)); }
inline void clear_row(bf16 *to) { _mm512_storeu_si512(to, _mm512_setzero_si512()); }

// Cap the scores of a block's 16 keys, of which the first is `key`, and make those minus infinity that are not seen.
inline F16 hide(float *scores, int key, Seen seen, float cap) {
    F16 x = load(scores);
    if (cap != 0.0f) x = softcap(x, cap);
    x = x + mask(seen, key);
    store(scores, x);
    return x;
}

// Weights are made in integers of 16 bits: the binary logarithm in steps of 1/256 has its whole part where bfloat16 has
// its exponent, one bit further up, and behind it x where a mantissa has 2^x - 1.
constexpr float kLogSteps = 256.0f;
constexpr float kLogStepsOfE = kLog2E * kLogSteps;
// Half a step is what rounding adds in the mean, to what is odd and half a number of bfloat16.
constexpr float kLogOfOne = 127.0f * kLogSteps - 0.5f;

// What x is more than 2^x - 1, in these steps, by its first 6 bits.
struct MantissaExcess {
    static constexpr int kEntries = 64;
    alignas(64) std::int8_t steps[kEntries] = {};

    constexpr MantissaExcess() {
        double power = 1.0054299011128027;  // 2^(1/128): in the middle of what has the same bits
        for (int i = 0; i < kEntries; ++i, power *= 1.0108892860517005)
            steps[i] = static_cast<std::int8_t>(kLogSteps * ((i + 0.5) / kEntries + 1.0 - power) + 0.5);
    }
};

// What `weights` takes for scores whose largest is `top`.
inline float weight_offset(float top) { return kLogOfOne - top * kLogStepsOfE; }

// Pairs of keys of two blocks take turns, so many at a time: as the instruction packs what it is given.
constexpr int kPairsInTurn = 2;

// exp(score - top) of the scores of two blocks, 0 for minus infinity, within 0.7 %, where bfloat16 rounds by up to 0.4.
// Exactly 1 for the largest, unless float32 has no digits left for the difference.
inline __m512i weights(F16 first, F16 second, F16 offset) {
    static constexpr MantissaExcess excess;
    const F16 steps = splat(kLogStepsOfE);
    const __m512i logs = _mm512_packus_epi32(_mm512_cvtps_epi32(fma(first, steps, offset).v),
                                             _mm512_cvtps_epi32(fma(second, steps, offset).v));
    constexpr __mmask64 low_bytes = 0x5555555555555555;
    const __m512i bits = _mm512_srli_epi16(logs, 2);
    const __m512i more = _mm512_maskz_permutexvar_epi8(low_bytes, bits, _mm512_load_si512(excess.steps));
    return _mm512_avg_epu16(_mm512_sub_epi16(logs, more), _mm512_setzero_si512());  // half of it, rounded
}

}  // namespace cortex
