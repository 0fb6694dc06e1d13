// A product that is being made, and where its sums go.
#pragma once

#include <algorithm>
#include <cstddef>

#include "linear_layout.h"

namespace cortex {
namespace {

// Rows and panels that stay in the L2 cache together.
constexpr std::size_t kBlockBytes = 256 * 1024;
constexpr int kBlockPanels = 4;

template <class Group>
const Group *panel_of(const cortex_linear &w, int panel) {
    const int groups = w.in_features / kGroup;
    return static_cast<const Group *>(w.data) + static_cast<std::size_t>(panel) * groups;
}

struct Product {
    const cortex_linear &w;
    const std::byte *prepared;
    std::size_t stride;  // of prepared rows
    float *y;
    std::size_t y_stride;
    bool add;
};

[[gnu::always_inline]] inline void finish(const Product &product, int panel, int row, F16 sums) {
    const int first = panel * kLanes, features = std::min(kLanes, product.w.out_features - first);
    const float *bias = product.w.bias ? product.w.bias + first : nullptr;
    float *y = product.y + static_cast<std::size_t>(row) * product.y_stride + first;
    if (features == kLanes) {
        if (bias) sums = sums + load(bias);
        store(y, product.add ? sums + load(y) : sums);
        return;
    }
    float lanes[kLanes];
    store(lanes, sums);
    for (int n = 0; n < features; ++n) {
        if (bias) lanes[n] += bias[n];
        y[n] = product.add ? lanes[n] + y[n] : lanes[n];
    }
}

// Whether there is nothing left to do with sums of the panels below `end` than to store them.
inline bool is_finished(const Product &product, int end) {
    return !product.add && product.w.bias == nullptr && end * kLanes <= product.w.out_features;
}

[[gnu::noinline]] void finish_tile(const Product &product, int panel, int panels, int row, int rows,
                                   const float *sums) {
    for (int p = 0; p < panels; ++p)
        for (int r = 0; r < rows; ++r, sums += kLanes) finish(product, panel + p, row + r, load(sums));
}

}  // namespace
}  // namespace cortex
