// Products of bfloat16 by the tile registers of AMX, or as these make them: the instruction rounds in an order of its
// own, always the same, and so do vectors for a few rows. Integers are multiplied as without it (docs/adr/0037).
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "linear_product.h"
#include "linear_tile_avx512.h"
#include "tiles.h"
#include "tiles_in_lanes.h"

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

template <int N>
using Panels = std::array<const Bf16Group *, N>;

// The sums of R rows with N panels as tiles make them, by vectors; as sum_panels does it for more rows.
template <int R, int N>
void sum_panels_in_lanes(Panels<N> w, int groups, int ahead, const std::byte *x, std::size_t stride, Place to) {
    const TileArithmetic arithmetic;
    F16 sums[R][N];
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) {
        CORTEX_UNROLL
        for (int n = 0; n < N; ++n) sums[r][n] = zero();
    }
    for (int g = 0; g < groups; ++g, x += sizeof(Bf16Inputs)) {
        TileProducts<R, N> products;
        products.add(
            kGroup / kBf16Run,
            [&](int r, int p) {
                const __m512i pair = broadcast_4_bytes(inputs_at<Bf16Inputs>(x, stride, r).x + p * kBf16Run);
                const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
                return SplatPair{{_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16))},
                                 {_mm512_castsi512_ps(_mm512_and_si512(pair, upper))}};
            },
            [&](int n, int p) { return w[n][g].w + p * kLanes * kBf16Run; },
            [&](int n, int p) { __builtin_prefetch(w[n][g + ahead].w + p * kLanes * kBf16Run, 0, 2); });
        products.add_to(sums);
    }
    CORTEX_UNROLL
    for (int r = 0; r < R; ++r) {
        CORTEX_UNROLL
        for (int n = 0; n < N; ++n) store(to.at + r * to.row + n * to.panel, sums[r][n]);
    }
}

// The sums of `rows` rows with N panels; those `ahead` groups behind them are fetched meanwhile.
template <int M, int N>
void sum_panels(Panels<N> w, int groups, int ahead, const std::byte *x, std::size_t stride, int rows, Place to) {
    using Tile = Bf16Tiles<M, N>;
    const Tiles tiles(Tile::shapes(rows));
    each<M * N>([](auto i) { zero_tile<i>(); });
    for (int g = 0; g < groups; ++g, x += sizeof(Bf16Inputs)) {
        each<M>([&](auto m) {
            load_tile<Tile::inputs(m)>(x + m * kMostTileRows * stride, stride);
            each<N>([&](auto n) {
                if (m == 0) {
                    load_tile<Tile::weights(n)>(w[n] + g, kTileRowBytes);
                    fetch<sizeof(Bf16Group)>(w[n] + g + ahead);
                }
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

constexpr int kTileFloats = kMostTileRows * kLanes;

// Products whose sums are a result's rows. What else sums become: linear_amx_gate.h.
struct ToRows : Product {
    // Panels of the result that N panels of weights make, and the least N.
    static constexpr int made(int n) { return n; }
    static constexpr int kLeast = 1;

    template <int N>
    Panels<N> weights(int panel) const {
        Panels<N> found;
        for (int n = 0; n < N; ++n) found[n] = panel_of<Bf16Group>(w, panel + n);
        return found;
    }
    // Whether tiles are stored where they belong, and where that is.
    bool takes_tiles(int panel, int n) const { return is_finished(*this, panel + n); }
    Place place(int panel, int row) const {
        return {y + row * y_stride + panel * kLanes, kLanes, kMostTileRows * y_stride, y_stride};
    }
    // The sums of one row, kTileFloats from panel to panel.
    template <int N>
    void take(int panel, int row, const float *sums) const {
        for (int n = 0; n < N; ++n) finish(*this, panel + n, row, load(sums + n * kTileFloats));
    }
};

// How the sums of at most kPairRows rows are made, and of how many panels at once.
template <int M>
struct InTiles {
    static constexpr int kPanels = 4 / M;
    int rows;  // in M blocks

    template <int N>
    void sum(Panels<N> w, int groups, int ahead, const std::byte *x, std::size_t stride, Place to) const {
        sum_panels<M, N>(w, groups, ahead, x, stride, rows, to);
    }
};
template <int R>
struct InLanes {
    static constexpr int kPanels = R <= 2 ? 4 : 2;
    static constexpr int rows = R;

    template <int N>
    void sum(Panels<N> w, int groups, int ahead, const std::byte *x, std::size_t stride, Place to) const {
        sum_panels_in_lanes<R, N>(w, groups, ahead, x, stride, to);
    }
};
// With more rows, vectors would have more to do than to wait for.
constexpr int kRowsInLanes = 4;

template <int N, class To, class How>
void multiply_panels(const To &to, int panel, int row, How how) {
    const auto sum_to = [&](Place place) {
        const int groups = to.w.in_features / kGroup;
        how.template sum<N>(to.template weights<N>(panel), groups, To::made(N) * groups, to.prepared + row * to.stride, to.stride,
                place);
    };
    if (to.takes_tiles(panel, N)) return sum_to(to.place(panel, row));
    alignas(64) float sums[2][N * kTileFloats];
    sum_to({sums[0], kTileFloats, N * kTileFloats, kLanes});
    for (int r = 0; r < how.rows; ++r)
        to.template take<N>(panel, row + r, sums[r / kMostTileRows] + r % kMostTileRows * kLanes);
}

// Rows from `row` on, of panels [panel, end).
template <class To, class How>
void multiply_blocks(const To &to, int panel, int end, int row, How how) {
    constexpr int step = To::made(How::kPanels);
    for (; panel + step <= end; panel += step) multiply_panels<How::kPanels>(to, panel, row, how);
    for (; panel < end; ++panel) multiply_panels<To::kLeast>(to, panel, row, how);
}

// Rows [row, row + rows), at most kPairRows.
constexpr int kPairRows = 2 * kMostTileRows;
template <class To>
void multiply_few(const To &to, int panel, int end, int row, int rows) {
    if (rows > kMostTileRows) return multiply_blocks(to, panel, end, row, InTiles<2>{rows});
    if (rows > kRowsInLanes) return multiply_blocks(to, panel, end, row, InTiles<1>{rows});
    each<kRowsInLanes>([&](auto r) {
        if (rows == r + 1) multiply_blocks(to, panel, end, row, InLanes<r + 1>());
    });
}

// Many rows: a pair of panels stays in the first cache while rows pass, so few groups at a time. Between these, sums
// lie in memory, from where they go on as they were.
constexpr int kPairPanels = 2;
constexpr int kChunkGroups = 18;
constexpr int kMostBlockRows = 512;
constexpr std::size_t kLineBytes = 64;
// Prepared rows that stay in the second cache while panels pass.
constexpr std::size_t kTileBlockBytes = 1024 * 1024;

using PairTiles = Bf16Tiles<2, kPairPanels>;
struct PairSums {
    alignas(64) float of[2][kPairPanels * kTileFloats];

    Place place() { return {of[0], kTileFloats, kPairPanels * kTileFloats, kLanes}; }
    const float *row(int r) const { return of[r / kMostTileRows] + r % kMostTileRows * kLanes; }
};

// What is wanted in the second cache soon.
struct Ahead {
    const std::byte *w[kPairPanels];
    int lines;         // for each group of a pair of blocks of rows
    std::size_t from;  // bytes of each that have been asked for

    void fetch_some() {
        for (int i = 0; i < lines; ++i, from += kLineBytes)
            for (const std::byte *panel : w) __builtin_prefetch(panel + from, 0, 2);
    }
};

// Sums of groups [first, end) of kPairRows rows with a pair of panels, which go on from `from`. For each of the groups
// beside() is called, and some of what is ahead asked for.
template <class Beside>
inline void sum_pair(Panels<kPairPanels> w, const std::byte *x, std::size_t stride, int first, int end, PairSums *from,
                     Place to, Ahead &ahead, Beside &&beside) {
    using Tile = PairTiles;
    each<2>([&](auto m) {
        each<kPairPanels>([&](auto n) {
            if (from)
                load_tile<Tile::sums(m, n)>(from->of[m] + n * kTileFloats, kTileRowBytes);
            else
                zero_tile<Tile::sums(m, n)>();
        });
    });
    for (int g = first; g < end; ++g) {
        const std::byte *rows = x + g * sizeof(Bf16Inputs);
        load_passing_tile<Tile::inputs(0)>(rows, stride);
        load_tile<Tile::weights(0)>(w[0] + g, kTileRowBytes);
        multiply_bf16<Tile::sums(0, 0), Tile::inputs(0), Tile::weights(0)>();
        load_passing_tile<Tile::inputs(1)>(rows + kMostTileRows * stride, stride);
        multiply_bf16<Tile::sums(1, 0), Tile::inputs(1), Tile::weights(0)>();
        load_tile<Tile::weights(1)>(w[1] + g, kTileRowBytes);
        multiply_bf16<Tile::sums(1, 1), Tile::inputs(1), Tile::weights(1)>();
        multiply_bf16<Tile::sums(0, 1), Tile::inputs(0), Tile::weights(1)>();
        ahead.fetch_some();
        beside();
    }
    each<2>([&](auto m) {
        each<kPairPanels>([&](auto n) {
            store_tile<Tile::sums(m, n)>(to.at + m * to.block + n * to.panel, to.row * sizeof(float));
        });
    });
}

// Rows [row, end), whole pairs of blocks, of a pair of panels.
template <class To>
void multiply_pair(const To &to, int panel, int row, int end) {
    static thread_local PairSums so_far[kMostBlockRows / kPairRows];
    const Panels<kPairPanels> w = to.template weights<kPairPanels>(panel);
    const int groups = to.w.in_features / kGroup, chunks = (groups + kChunkGroups - 1) / kChunkGroups;
    const Tiles tiles(PairTiles::shapes(kPairRows));
    // Behind a matrix something else is fetched, which does no harm.
    constexpr int group_lines = sizeof(Bf16Group) / kLineBytes;
    const int pairs = (end - row) / kPairRows;
    const auto behind = [&](int n) { return reinterpret_cast<const std::byte *>(w[n] + groups * To::made(kPairPanels)); };
    Ahead ahead{{behind(0), behind(1)}, (group_lines + pairs - 1) / pairs, 0};
    const auto sum = [&](int chunk, int r, Place place, auto &&beside) {
        const int first = groups * chunk / chunks, last = groups * (chunk + 1) / chunks;
        sum_pair(w, to.prepared + r * to.stride, to.stride, first, last,
                 chunk ? &so_far[(r - row) / kPairRows] : nullptr, place, ahead, beside);
    };
    const auto nothing = [] {};
    for (int chunk = 0; chunk < chunks - 1; ++chunk)
        for (int r = row; r < end; r += kPairRows) sum(chunk, r, so_far[(r - row) / kPairRows].place(), nothing);
    if (to.takes_tiles(panel, kPairPanels)) {
        for (int r = row; r < end; r += kPairRows) sum(chunks - 1, r, to.place(panel, r), nothing);
        return;
    }
    // The rows before are taken meanwhile.
    PairSums done[2];
    const int each = kPairRows / std::min(kPairRows, groups - groups * (chunks - 1) / chunks);
    const auto take = [&](int r, int count) {
        const PairSums &from = done[(r - row) / kPairRows % 2];
        for (; count > 0; --count, ++r) to.template take<kPairPanels>(panel, r, from.row((r - row) % kPairRows));
    };
    int taken = row;
    for (int r = row; r < end; r += kPairRows) {
        sum(chunks - 1, r, done[(r - row) / kPairRows % 2].place(), [&] {
            if (taken + each <= r) take(taken, each), taken += each;
        });
        take(taken, r - taken);
        taken = r;
    }
    take(taken, end - taken);
}

inline int block_rows(std::size_t stride) {
    return std::clamp<int>(kTileBlockBytes / stride / kPairRows, 1, kMostBlockRows / kPairRows) * kPairRows;
}

// All rows of panels [panel, end).
template <class To>
void multiply_by_tiles(const To &to, int panel, int end, int rows) {
    constexpr int step = To::made(kPairPanels);
    const int most = block_rows(to.stride);
    for (int row = 0; row < rows; row += most) {
        const int last = std::min(rows, row + most);
        const int paired = last - row > kPairRows ? row + (last - row) / kPairRows * kPairRows : row;
        int p = panel;
        for (; paired > row && p + step <= end; p += step) multiply_pair(to, p, row, paired);
        for (int r = row; r < paired && p < end; r += kPairRows) multiply_few(to, p, end, r, kPairRows);
        multiply_few(to, panel, end, paired, last - paired);
    }
}

}  // namespace
}  // namespace cortex
