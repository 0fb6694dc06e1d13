// exp and what is made of it, 16 lanes at a time. Every lane goes through the same operations, so a value's result
// does not depend on its neighbours.
#pragma once

#include "simd.h"

namespace cortex {

// exp(x) = scale * (1 + rest), scale a power of two.
struct ExpParts {
    F16 scale, rest;
};

// What is below -88 counts as -88, whose scale is 2^-127, which exp2_whole makes 0; what is above 88 as 88.
inline ExpParts exp_parts(F16 x) {
    x = min(splat(88.0f), max(splat(-88.0f), x));  // in this order a NaN stays one
    const F16 n = round(x * splat(1.44269504f));
    F16 r = fma(n, splat(-0.693359375f), x);  // ln 2 in two parts, the first of few digits
    r = fma(n, splat(2.12194440e-4f), r);
    F16 series = fma(r, splat(0x1.6a2352p-10f), splat(0x1.123a6cp-7f));
    series = fma(r, series, splat(0x1.5558f4p-5f));
    series = fma(r, series, splat(0x1.555490p-3f));
    series = fma(r, series, splat(0x1.fffffcp-2f));
    return {exp2_whole(n), fma(r * r, series, r)};
}

// Within 1e-7 of exp(x), relatively; exactly 1 at 0, and 0 from -88 downwards.
inline F16 exp(F16 x) {
    const ExpParts parts = exp_parts(x);
    return fma(parts.scale, parts.rest, parts.scale);
}

inline float exp(float x) {
    float lanes[kLanes];
    store(lanes, exp(splat(x)));
    return lanes[0];
}

inline F16 tanh(F16 x) {
    const F16 one = splat(1.0f), bound = splat(20.0f);
    const ExpParts parts = exp_parts(min(bound, max(zero() - bound, x + x)));
    const F16 less_one = fma(parts.scale, parts.rest, parts.scale - one);  // exp(2x) - 1
    return less_one / (less_one + splat(2.0f));
}

// x / (1 + exp(-y)).
inline F16 sigmoid_of(F16 y, F16 x) { return x / (splat(1.0f) + exp(zero() - y)); }

// cap * tanh(x / cap).
inline F16 softcap(F16 x, float cap) { return splat(cap) * tanh(x / splat(cap)); }

}  // namespace cortex
