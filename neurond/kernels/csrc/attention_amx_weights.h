// What scores become for AMX: weights in bfloat16.
#pragma once

#include "approx.h"
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

constexpr float kLog2E = 1.44269504f;
inline float weight_offset(float top) { return -top * kLog2E; }

// exp(score - top) with the offset of `top`, the largest score, within a sixteenth of what rounding to bfloat16
// changes at most; 0 for minus infinity.
inline F16 weight(F16 score, F16 offset) {
    const F16 x = fma(score, splat(kLog2E), offset);
    const F16 rest{_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};  // what a whole number lacks
    F16 power = fma(rest, splat(0.0555041f), splat(0.2402265f));
    power = fma(rest, power, splat(0.6931472f));
    power = fma(rest, power, splat(1.0f));
    return {_mm512_scalef_ps(power.v, (x - rest).v)};
}

}  // namespace cortex
