// What is rounded to bfloat16 at once, with errors of a tenth of what that changes at most, or less.
#pragma once

#include "simd.h"

#ifdef CORTEX_AVX512

namespace cortex {

constexpr float kLog2E = 1.44269504f;

// 2^x; 0 for minus infinity.
inline F16 exp2_rounded(F16 x) {
    const F16 rest{_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};  // what a whole number lacks
    F16 power = fma(rest, splat(0.0550089f), splat(0.2422110f));
    power = fma(rest, power, splat(0.6932829f));
    power = fma(rest, power, splat(1.0f));
    return {_mm512_scalef_ps(power.v, (x - rest).v)};
}

// As Sigmoid.
struct RoundedSigmoid {
    F16 operator()(F16 y, F16 x) const {
        const F16 above = exp2_rounded(y * splat(-kLog2E)) + splat(1.0f);
        return x * F16{_mm512_rcp14_ps(above.v)};
    }
};

}  // namespace cortex

#endif
