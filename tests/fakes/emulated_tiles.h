/* What csrc/tiles.h does with the tile registers of AMX, emulated on any processor with AVX2 and FMA, after the
 * operations that Intel's "64 and IA-32 Architectures Software Developer's Manual" writes down. */
#pragma once

#include <cstring>
#include <immintrin.h>

namespace cortex {

struct EmulatedTile {
    alignas(64) unsigned char rows[kMostTileRows][kTileRowBytes];
};
inline thread_local TileShapes emulated_shapes;
inline thread_local EmulatedTile emulated_tiles[8];

inline void load_tile_shapes(const TileShapes &shapes) {
    emulated_shapes = shapes;
    std::memset(emulated_tiles, 0, sizeof emulated_tiles);
}
inline void release_tiles() { load_tile_shapes({}); }

template <int T>
void zero_tile() {
    emulated_tiles[T] = {};
}
template <int T>
void load_tile(const void *rows, std::size_t stride) {
    zero_tile<T>();
    for (int r = 0; r < emulated_shapes.rows[T]; ++r)
        std::memcpy(emulated_tiles[T].rows[r], static_cast<const char *>(rows) + r * stride,
                    emulated_shapes.row_bytes[T]);
}
template <int T>
void load_passing_tile(const void *rows, std::size_t stride) {
    load_tile<T>(rows, stride);
}
template <int T>
void store_tile(void *rows, std::size_t stride) {
    for (int r = 0; r < emulated_shapes.rows[T]; ++r)
        std::memcpy(static_cast<char *>(rows) + r * stride, emulated_tiles[T].rows[r], emulated_shapes.row_bytes[T]);
}

/* Add to row `to` of C, of `n` times 8 columns, its products with `pairs` rows of B. */
[[gnu::noinline]] inline void emulated_bf16_row(unsigned char *to, const unsigned char *a, const EmulatedTile &b,
                                                int pairs, int n) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    for (int i = 0; i < n; ++i) {
        __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
        for (int k = 0; k < pairs; ++k) {
            int pair;
            std::memcpy(&pair, a + 4 * k, sizeof pair);
            const __m256i both = _mm256_set1_epi32(pair);
            const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i *>(b.rows[k] + 32 * i));
            even = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(both, 16)),
                                   _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)), even);
            odd = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(both, upper)),
                                  _mm256_castsi256_ps(_mm256_and_si256(w, upper)), odd);
        }
        float *sums = reinterpret_cast<float *>(to) + 8 * i;
        _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), _mm256_add_ps(even, odd)));
    }
}

/* Columns come in multiples of 8. */
template <int C, int A, int B>
void multiply_bf16() {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x1f80 | 0x8040); /* to nearest, no exceptions, numbers below 2^-126 are 0 */
    for (int r = 0; r < emulated_shapes.rows[C]; ++r)
        emulated_bf16_row(emulated_tiles[C].rows[r], emulated_tiles[A].rows[r], emulated_tiles[B],
                          emulated_shapes.row_bytes[A] / 4, emulated_shapes.row_bytes[C] / 32);
    _mm_setcsr(before);
}

}  // namespace cortex
