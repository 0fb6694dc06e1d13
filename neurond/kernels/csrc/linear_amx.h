// Products of bfloat16 by the tile registers of AMX, for any number of rows: the instruction rounds in an order of its
// own, always the same. Integers are multiplied as without it (docs/adr/0033).
#pragma once

#include <algorithm>
#include <utility>

#include "linear_product.h"
#include "tiles.h"

namespace cortex {
namespace {

template <class F, int... I>
inline void each_of(std::integer_sequence<int, I...>, F &&f) {
    (f(std::integral_constant<int, I>{}), ...);
}
// Call f(0), f(1), … f(N - 1), each with a constant.
template <int N, class F>
inline void each(F &&f) {
    each_of(std::make_integer_sequence<int, N>{}, f);
}

// Registers of a product of M blocks of rows with N panels, M <= 2, M N <= 4; all blocks but the last have 16 rows.
template <int M, int N>
struct Bf16Tiles {
    static constexpr int sums(int m, int n) { return m * N + n; }
    static constexpr int inputs(int m) { return 4 + m; }
    static constexpr int weights(int n) { return 4 + M + n % (4 - M); }

    static TileShapes shapes(int rows) {
        TileShapes made;
        for (int n = 0; n < N; ++n) made.set(weights(n), kGroup / kBf16Run);
        for (int m = 0; m < M; ++m) {
            const int count = m == M - 1 ? rows - m * kMostTileRows : kMostTileRows;
            made.set(inputs(m), count);
            for (int n = 0; n < N; ++n) made.set(sums(m, n), count);
        }
        return made;
    }
};

// Where sums go: how many floats lie between panels, between blocks of rows, and between rows.
struct Place {
    float *at;
    std::size_t panel, block, row;
};

// The sums of `rows` rows with N panels that begin at w.
template <int M, int N>
void sum_panels(const Bf16Group *w, int groups, const std::byte *x, std::size_t stride, int rows, Place to) {
    using Tile = Bf16Tiles<M, N>;
    const Tiles tiles(Tile::shapes(rows));
    each<M * N>([](auto i) { zero_tile<i>(); });
    for (int g = 0; g < groups; ++g, ++w, x += sizeof(Bf16Inputs)) {
        each<M>([&](auto m) {
            load_tile<Tile::inputs(m)>(x + m * kMostTileRows * stride, stride);
            each<N>([&](auto n) {
                if (m == 0)
                    load_tile<Tile::weights(n)>(w + static_cast<std::ptrdiff_t>(n) * groups, kTileRowBytes);
                multiply_bf16<Tile::sums(m, n), Tile::inputs(m), Tile::weights(n)>();
            });
        });
    }
    each<M>([&](auto m) {
        each<N>([&](auto n) {
            store_tile<Tile::sums(m, n)>(to.at + m * to.block + n * to.panel, to.row * sizeof(float));
        });
    });
}

template <int M, int N>
void multiply_panels(const Product &product, int panel, int row, int rows) {
    const auto sum_to = [&](Place to) {
        sum_panels<M, N>(panel_of<Bf16Group>(product.w, panel), product.w.in_features / kGroup,
                         product.prepared + row * product.stride, product.stride, rows, to);
    };
    if (is_finished(product, panel + N)) {
        const std::size_t stride = product.y_stride;
        return sum_to({product.y + row * stride + panel * kLanes, kLanes, kMostTileRows * stride, stride});
    }
    constexpr int kFloats = kMostTileRows * kLanes;
    alignas(64) float sums[M * N * kFloats];
    sum_to({sums, kFloats, N * kFloats, kLanes});
    for (int m = 0; m < M; ++m, row += kMostTileRows, rows -= kMostTileRows)
        for (int n = 0; n < N; ++n)
            finish_tile(product, panel + n, 1, row, std::min(kMostTileRows, rows), sums + (m * N + n) * kFloats);
}

// Rows [row, row + rows), in M blocks, of panels [panel, end).
template <int M>
void multiply_blocks(const Product &product, int panel, int end, int row, int rows) {
    constexpr int N = 4 / M;
    for (; panel + N <= end; panel += N) multiply_panels<M, N>(product, panel, row, rows);
    for (; panel < end; ++panel) multiply_panels<M, 1>(product, panel, row, rows);
}

// As kBlockBytes: processors with tiles have larger caches.
constexpr std::size_t kTileBlockBytes = 768 * 1024;

// All rows of panels [panel, end).
void multiply_by_tiles(const Product &product, int panel, int end, int rows) {
    constexpr int kPair = 2 * kMostTileRows;
    const int block = std::max<int>(kTileBlockBytes / (product.stride * kPair), 1) * kPair;
    for (int first = 0; first < rows; first += block)
        for (int p = panel; p < end; p += kBlockPanels)
            for (int row = first; row < std::min(rows, first + block); row += kPair) {
                const int count = std::min(rows - row, kPair), last = std::min(end, p + kBlockPanels);
                if (count > kMostTileRows)
                    multiply_blocks<2>(product, p, last, row, count);
                else
                    multiply_blocks<1>(product, p, last, row, count);
            }
}

}  // namespace
}  // namespace cortex
