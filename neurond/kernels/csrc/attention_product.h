// How products with keys and values are cut: into register tiles of R rows and S vectors.
//
// An output element has one accumulator and one order of operations, whatever R and S it is computed with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "attention.h"
#include "attention_pages.h"
#include "attention_softmax.h"
#include "simd.h"

namespace cortex {

// Rows that a tile has at most.
constexpr int kLaneRows = 48;
// Rows that one register tile takes.
constexpr int kMaxTileRows = 6;
// Not a multiple of a page's size: else rows would be in each other's way in the cache.
constexpr std::size_t kScoreStride = kSpanTokens + kLanes;

template <int N>
using Constant = std::integral_constant<int, N>;

// Call f(row, Constant<R>) for tiles of R rows that together make up `rows`.
template <class F>
inline void each_row_tile(int rows, F &&f) {
    for (int row = 0; row < rows;) {
        const int left = rows - row;
        const int take = left == 7 || left == 8 ? 4 : std::min(left, kMaxTileRows);
        switch (take) {
            case 1: f(row, Constant<1>{}); break;
            case 2: f(row, Constant<2>{}); break;
            case 3: f(row, Constant<3>{}); break;
            case 4: f(row, Constant<4>{}); break;
            case 5: f(row, Constant<5>{}); break;
            default: f(row, Constant<kMaxTileRows>{});
        }
        row += take;
    }
}

// Call f(at, Constant<S>) for runs of S vectors that together make up `vectors`, with S at most Most.
template <int Most, class F>
inline void each_vector_tile(int vectors, F &&f) {
    int at = 0;
    for (; at + Most <= vectors; at += Most) f(at, Constant<Most>{});
    for (; at < vectors; ++at) f(at, Constant<1>{});
}

// What a format of `LaneProducts` (attention_lanes.h) has unless it says otherwise.
struct LaneFormat {
    static constexpr int kBlocksTogether = 1;
    struct Arithmetic {};  // how the processor rounds while there is one

    static void weights_from_scores(float *scores, int num_keys, int first_key, Seen seen, float cap, Record record) {
        cortex::weights_from_scores(scores, num_keys, first_key, seen, cap, record);
    }
};

}  // namespace cortex
