#include "linear.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "linear_quantise.h"
#include "linear_tile.h"
#include "pool.h"

namespace cortex {
namespace {

constexpr int kTileRows = 6;
constexpr std::size_t kBlockBytes = 256 * 1024;  // prepared rows that stay in the L2 cache

template <class Format>
const typename Format::Group *panel_of(const cortex_linear &w, int panel) {
    const int groups = w.in_features / kGroup;
    return static_cast<const typename Format::Group *>(w.data) + static_cast<std::size_t>(panel) * groups;
}

struct Output {
    float *y;  // of the panel's first feature
    std::size_t stride;
    const float *bias;  // of the panel's first feature, or null
    int features;       // of the panel
    bool add;
};

void finish(const Output &out, int row, F16 sums) {
    float *y = out.y + static_cast<std::size_t>(row) * out.stride;
    if (out.features == kLanes) {
        if (out.bias) sums = sums + load(out.bias);
        store(y, out.add ? sums + load(y) : sums);
        return;
    }
    float lanes[kLanes];
    store(lanes, sums);
    for (int n = 0; n < out.features; ++n) {
        if (out.bias) lanes[n] += out.bias[n];
        y[n] = out.add ? lanes[n] + y[n] : lanes[n];
    }
}

// Rows [first, first + R) of one panel.
template <int R, class Group>
void multiply_tile(const Group *w, int groups, const std::byte *prepared, std::size_t stride, const Output &out,
                   int first) {
    F16 sums[R];
    tile<R>(w, groups, prepared + static_cast<std::size_t>(first) * stride, stride, sums);
    for (int r = 0; r < R; ++r) finish(out, first + r, sums[r]);
}

template <class Group>
void multiply_rows(int rows, const Group *w, int groups, const std::byte *prepared, std::size_t stride,
                   const Output &out, int first) {
    switch (rows) {
        case 1: return multiply_tile<1>(w, groups, prepared, stride, out, first);
        case 2: return multiply_tile<2>(w, groups, prepared, stride, out, first);
        case 3: return multiply_tile<3>(w, groups, prepared, stride, out, first);
        case 4: return multiply_tile<4>(w, groups, prepared, stride, out, first);
        case 5: return multiply_tile<5>(w, groups, prepared, stride, out, first);
        default: return multiply_tile<6>(w, groups, prepared, stride, out, first);
    }
}

// Rows [first, end) of one panel, in as few tiles as can be, of sizes as equal as can be.
template <class Group>
void multiply_panel(const Group *w, int groups, const std::byte *prepared, std::size_t stride, const Output &out,
                    int first, int end) {
    for (int tiles = (end - first + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
        const int rows = (end - first + tiles - 1) / tiles;
        multiply_rows(rows, w, groups, prepared, stride, out, first);
        first += rows;
    }
}

}  // namespace

std::size_t prepared_bytes(int format, int in_features) {
    return with_format(format, [&](auto as) {
        const std::size_t bytes = in_features / kGroup * sizeof(typename decltype(as)::Inputs);
        // An odd number of cache lines, so that the rows of a tile do not compete for the same sets of a cache.
        return ((bytes + 63) / 64 | 1) * 64;
    });
}

void prepare_row(int format, int in_features, const float *x, void *prepared) {
    with_format(format, [&](auto as) {
        auto *inputs = static_cast<typename decltype(as)::Inputs *>(prepared);
        for (int k = 0; k < in_features; k += kGroup) prepare_group(*inputs++, x + k);
    });
}

void multiply(const cortex_linear &w, const void *prepared, int rows, int first_panel, int panels, float *y,
              std::size_t y_stride, bool add) {
    const std::size_t stride = prepared_bytes(w.format, w.in_features);
    const int block = std::max<int>(kTileRows, kBlockBytes / stride / kTileRows * kTileRows);
    with_format(w.format, [&](auto as) {
        for (int first = 0; first < rows; first += block)
            for (int panel = first_panel; panel < first_panel + panels; ++panel) {
                const int n = panel * kLanes;
                const Output out{y + n, y_stride, w.bias ? w.bias + n : nullptr,
                                 std::min(kLanes, w.out_features - n), add};
                multiply_panel(panel_of<decltype(as)>(w, panel), w.in_features / kGroup,
                               static_cast<const std::byte *>(prepared), stride, out, first,
                               std::min(rows, first + block));
            }
    });
}

}  // namespace cortex

using namespace cortex;

extern "C" {

size_t cortex_packed_bytes(int32_t format, int32_t out_features, int32_t in_features) {
    const std::size_t panels = (out_features + kLanes - 1) / kLanes;
    return with_format(format, [&](auto as) {
        return panels * (in_features / kGroup) * sizeof(typename decltype(as)::Group);
    });
}

void cortex_pack_rows(int32_t format, int32_t, int32_t in_features, int32_t first_row, int32_t rows,
                      const float *w, void *data) {
    with_format(format, [&](auto as) {
        using Group = typename decltype(as)::Group;
        const std::size_t groups = in_features / kGroup;
        for (int row = 0; row < rows; ++row) {
            Group *group = static_cast<Group *>(data) + (first_row + row) / kLanes * groups;
            for (std::size_t g = 0; g < groups; ++g, w += kGroup) pack_group(group[g], row % kLanes, w);
        }
    });
}

void cortex_unpack_rows(const cortex_linear *linear, int32_t first_row, int32_t rows, float *w) {
    with_format(linear->format, [&](auto as) {
        const int groups = linear->in_features / kGroup;
        for (int row = first_row; row < first_row + rows; ++row) {
            const auto *group = panel_of<decltype(as)>(*linear, row / kLanes);
            for (int g = 0; g < groups; ++g, w += kGroup) unpack_group(group[g], row % kLanes, w);
        }
    });
}

void cortex_linear_apply(cortex_pool *pool, const cortex_linear *linear, int32_t rows, const float *x, float *y) {
    const std::size_t stride = prepared_bytes(linear->format, linear->in_features);
    const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, stride * rows), &std::free);
    std::byte *prepared = static_cast<std::byte *>(scratch.get());
    pool->run(rows, [&](int row, int) {
        prepare_row(linear->format, linear->in_features, x + static_cast<std::size_t>(row) * linear->in_features,
                    prepared + row * stride);
    });
    constexpr int kPanels = 8;
    const int panels = panels_of(*linear);
    pool->run((panels + kPanels - 1) / kPanels, [&](int item, int) {
        const int first = item * kPanels;
        multiply(*linear, prepared, rows, first, std::min(kPanels, panels - first), y, linear->out_features,
                 false);
    });
}

}  // extern "C"
