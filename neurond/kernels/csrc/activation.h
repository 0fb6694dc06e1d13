// What stands between a gate and what it lets through.
#pragma once

#include "abi.h"
#include "approx.h"
#include "simd.h"

namespace cortex {

// What makes x / (1 + exp(-y)), for those that are made of it.
struct Sigmoid {
    F16 operator()(F16 y, F16 x) const { return sigmoid_of(y, x); }
};

struct Silu {
    template <class S>
    F16 operator()(F16 x, S sigmoid) const {
        return sigmoid(x, x);
    }
};

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as x times a sigmoid.
struct GeluTanh {
    template <class S>
    F16 operator()(F16 x, S sigmoid) const {
        const F16 cubic = fma(x * x, splat(0.044715f), splat(1.0f));
        return sigmoid(x * cubic * splat(1.5957691216f), x);
    }
};

// x/2 (1 + erf(x / sqrt(2))). Half of erfc(|x| / sqrt(2)) is taken off from the positive side or is what is left of
// the negative one (Abramowitz and Stegun 7.1.26: within 1.5e-7).
struct Gelu {
    template <class S>
    F16 operator()(F16 x, S) const {
        const F16 z = abs(x) * splat(0.70710678f);
        const F16 t = splat(1.0f) / fma(z, splat(0.3275911f), splat(1.0f));
        F16 series = fma(t, splat(1.061405429f), splat(-1.453152027f));
        series = fma(t, series, splat(1.421413741f));
        series = fma(t, series, splat(-0.284496736f));
        series = fma(t, series, splat(0.254829592f));
        const F16 erfc = t * series * exp(zero() - z * z);
        return max(x, zero()) - abs(x) * erfc * splat(0.5f);
    }
};

// Call f with the activation.
template <class F>
void with_activation(int activation, F &&f) {
    if (activation == CORTEX_GELU_TANH) return f(GeluTanh());
    if (activation == CORTEX_GELU) return f(Gelu());
    f(Silu());
}

}  // namespace cortex
