// What scores become for AMX: weights in bfloat16.
#pragma once

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

inline float weight_offset(float top) { return -top * kLog2E; }

// exp(score - top) with the offset of `top`, the largest score; 0 for minus infinity.
inline F16 weight(F16 score, F16 offset) { return exp2_rounded(fma(score, splat(kLog2E), offset)); }

}  // namespace cortex
