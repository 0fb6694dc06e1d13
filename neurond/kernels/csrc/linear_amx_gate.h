// Products whose sums, of a gate's panels and of as many of `up`, become the rows of the next product.
#pragma once

#include "activation.h"
#include "approx_rounded.h"
#include "linear_amx.h"

namespace cortex {
namespace {

template <class Activation>
struct ToGated {
    static constexpr int made(int n) { return n / 2; }
    static constexpr int kLeast = 2;

    const cortex_linear &w;  // gate, then up
    const std::byte *prepared;
    std::size_t stride;
    std::byte *next;  // prepared rows
    std::size_t next_stride;

    // Panels of the gate, then as many of `up`.
    template <int N>
    Panels<N> weights(int panel) const {
        const int up = w.out_features / kLanes / 2;
        Panels<N> found;
        for (int n = 0; n < N / 2; ++n) {
            found[n] = panel_of<Bf16Group>(w, panel + n);
            found[N / 2 + n] = panel_of<Bf16Group>(w, up + panel + n);
        }
        return found;
    }
    bool takes_tiles(int, int) const { return false; }
    Place place(int, int) const { return {}; }
    template <int N>
    void take(int panel, int row, const float *sums) const {
        for (int n = 0; n < N / 2; ++n) {
            const int at = (panel + n) * kLanes;
            F16 gate = load(sums + n * kTileFloats), up = load(sums + (N / 2 + n) * kTileFloats);
            if (w.bias) gate = gate + load(w.bias + at), up = up + load(w.bias + w.out_features / 2 + at);
            auto *inputs = reinterpret_cast<bf16 *>(next + row * next_stride);
            store_rounded(inputs + at, Activation()(gate, RoundedSigmoid()) * up);
        }
    }
};

}  // namespace
}  // namespace cortex
