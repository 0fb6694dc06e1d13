// What TDPBF16PS computes, to the last bit, by vectors: where a few rows wait for what they are multiplied with, vectors
// are loaded well ahead of their use, and tiles are not.
//
// It adds up the products of even places and those of odd ones, each in ascending order with one rounding, then both
// sums, then that to what is there; and takes for 0 what is below 2^-126.
#pragma once

#include <xmmintrin.h>

#include "simd.h"

namespace cortex {

// Numbers below 2^-126 are 0, as inputs and as results, as long as one of these lives.
class TileArithmetic {
  public:
    TileArithmetic() { set(before_ | 0x8040); }
    ~TileArithmetic() { set(before_); }
    TileArithmetic(const TileArithmetic &) = delete;
    TileArithmetic &operator=(const TileArithmetic &) = delete;

  private:
    // Compilers take no notice of it: what is loaded and stored in between is not moved.
    static void set(unsigned control) {
        asm volatile("" ::: "memory");
        _mm_setcsr(control);
        asm volatile("" ::: "memory");
    }
    const unsigned before_ = _mm_getcsr();
};

// An even place and the odd one behind it, of one row, in all lanes.
struct SplatPair {
    F16 even, odd;
};

// One product of R rows with S tiles.
template <int R, int S>
class TileProducts {
  public:
    TileProducts() {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) even_[r][s] = odd_[r][s] = zero();
    }

    // Products of `pairs` pairs: inputs(r, p) is one of row r, weights(s, p) where those of tile s lie. fetch(s, p) is
    // called for each.
    template <class Inputs, class Weights, class Fetch>
    void add(int pairs, Inputs &&inputs, Weights &&weights, Fetch &&fetch) {
        for (int p = 0; p < pairs; ++p) {
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) {
                fetch(s, p);
                const F16 first = load_even(weights(s, p)), second = load_odd(weights(s, p));
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const SplatPair pair = inputs(r, p);
                    even_[r][s] = fma(pair.even, first, even_[r][s]);
                    odd_[r][s] = fma(pair.odd, second, odd_[r][s]);
                }
            }
        }
    }

    void add_to(F16 (&sums)[R][S]) const {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s) sums[r][s] = sums[r][s] + (even_[r][s] + odd_[r][s]);
    }

  private:
    F16 even_[R][S], odd_[R][S];
};

}  // namespace cortex
