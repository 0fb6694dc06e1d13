#include "linear.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "linear_inputs.h"
#include "linear_product.h"
#include "linear_quantise.h"
#include "pool.h"
#include "product_share.h"
#ifdef CORTEX_AVX512
#include "linear_tile_avx512.h"
#else
#include "linear_tile.h"
#endif
#ifdef CORTEX_AMX
#include "linear_amx_gate.h"
#endif

namespace cortex {
namespace {

// Where rows are so few, panels are multiplied so many at a time, or half as many.
constexpr int kFewRows = 3;
constexpr int kFewRowsPanels = 4;

// A tile's sums [P][R][kLanes], in a function of its own: with what is done with them beside it, or with another tile,
// the compiler keeps half of them in memory, and takes many times as long.
template <class Group, int P, int R>
[[gnu::noinline]] void sum_tile(const Group *w, int panel_groups, int groups, const std::byte *x, std::size_t stride,
                                const void *ahead, float *to) {
    F16 sums[P][R];
    tile(w, panel_groups, groups, x, stride, ahead, sums);
    CORTEX_UNROLL
    for (int p = 0; p < P; ++p) {
        CORTEX_UNROLL
        for (int r = 0; r < R; ++r) store(to + (p * R + r) * kLanes, sums[p][r]);
    }
}

// Add the products of the second parts that any row of the tile has, one group after the other. Where a row has none,
// 0 is added.
template <class Format, int P, int R>
void add_second_parts(const typename Format::Group *w, int groups, const std::byte *x, std::size_t stride,
                      float *sums) {
    using Group = typename Format::Group;
    using Inputs = typename Format::Inputs;
    const RowLayout<Inputs> row{static_cast<std::size_t>(groups)};
    for (std::size_t word = 0; word < row.words(); ++word) {
        std::uint64_t bits = 0;
        for (int r = 0; r < R; ++r) bits |= reinterpret_cast<const std::uint64_t *>(x + r * stride + row.bits())[word];
        for (; bits != 0; bits &= bits - 1) {
            const std::size_t g = word * 64 + __builtin_ctzll(bits);
            float more[P * R * kLanes];
            sum_tile<Group, P, R>(w + g, groups, 1, x + row.second() + g * sizeof(Inputs), stride, nullptr, more);
            for (int i = 0; i < P * R * kLanes; ++i) sums[i] += more[i];
        }
    }
}

template <class Format, int P, int R>
void multiply_tile(const Product &product, int panel, int row, bool is_first) {
    float sums[P * R * kLanes];
    const auto *w = panel_of<typename Format::Group>(product.w, panel);
    const int groups = product.w.in_features / kGroup;
    const std::byte *x = product.prepared + static_cast<std::size_t>(row) * product.stride;
    const auto *ahead = is_first ? w + static_cast<std::ptrdiff_t>(P) * groups : nullptr;
    sum_tile<typename Format::Group, P, R>(w, groups, groups, x, product.stride, ahead, sums);
    if constexpr (kInTwoParts<typename Format::Inputs>)
        add_second_parts<Format, P, R>(w, groups, x, product.stride, sums);
    finish_tile(product, panel, P, row, R, sums);
}

// Rows [row, row + R) of panels [panel, end). With `is_first` each tile fetches the panels of the next, whichever thread
// has them: most often it is this one.
template <class Format, int R>
void multiply_rows(const Product &product, int panel, int end, int row, bool is_first) {
    constexpr int P = tile_panels<typename Format::Group>(R);
    for (; panel + P <= end; panel += P) multiply_tile<Format, P, R>(product, panel, row, is_first);
    for (; panel < end; ++panel) multiply_tile<Format, 1, R>(product, panel, row, is_first);
}

// Rows [row, last) of panels [panel, end), in as few tiles as can be, of sizes as equal as can be.
template <class Format>
void multiply_block(const Product &product, int panel, int end, int row, int last) {
    constexpr int most = kTileRows<typename Format::Group>;
    const int first = row;
    for (int tiles = (last - row + most - 1) / most; tiles > 0; --tiles) {
        const int rows = (last - row + tiles - 1) / tiles;
        const bool is_first = row == first;
        switch (rows) {
            case 1: multiply_rows<Format, 1>(product, panel, end, row, is_first); break;
            case 2: multiply_rows<Format, 2>(product, panel, end, row, is_first); break;
            case 3: multiply_rows<Format, 3>(product, panel, end, row, is_first); break;
            case 4: multiply_rows<Format, 4>(product, panel, end, row, is_first); break;
            case 5: multiply_rows<Format, 5>(product, panel, end, row, is_first); break;
            default: multiply_rows<Format, most>(product, panel, end, row, is_first);
        }
        row += rows;
    }
}

}  // namespace

std::size_t prepared_bytes(int format, int in_features) {
    return with_format(format, [&](auto as) {
        const RowLayout<typename decltype(as)::Inputs> row{static_cast<std::size_t>(in_features / kGroup)};
        // An odd number of cache lines, so that the rows of a tile do not compete for the same sets of a cache.
        return ((row.end() + 63) / 64 | 1) * 64;
    });
}

Cut cut_of([[maybe_unused]] const cortex_linear &w, [[maybe_unused]] int rows) {
#ifdef CORTEX_AMX
    if (w.format == CORTEX_BF16 && rows > kPairRows) {
        const int most = block_rows(prepared_bytes(w.format, w.in_features)), items = (rows + most - 1) / most;
        return {(rows + items * kPairRows - 1) / (items * kPairRows) * kPairRows, kPairPanels, kPairPanels};
    }
#endif
    // So many prepared rows stay in a core's cache beside a panel of weights.
    return {64, 1, rows <= kFewRows ? kFewRowsPanels : 1};
}

void prepare_row(int format, int in_features, const float *x, void *prepared) {
    with_format(format, [&](auto as) {
        prepare<typename decltype(as)::Inputs>(in_features, x, static_cast<std::byte *>(prepared));
    });
}

void multiply(const cortex_linear &w, const void *prepared, int rows, int first_panel, int panels, float *y,
              std::size_t y_stride, bool add) {
    const std::size_t stride = prepared_bytes(w.format, w.in_features);
    const Product product{w, static_cast<const std::byte *>(prepared), stride, y, y_stride, add};
    const int block = static_cast<int>(std::max<std::size_t>(kBlockBytes / stride, 1)), end = first_panel + panels;
#ifdef CORTEX_AMX
    if (w.format == CORTEX_BF16) return multiply_by_tiles(ToRows{product}, first_panel, end, rows);
#endif
    with_format(w.format, [&](auto as) {
        for (int row = 0; row < rows; row += block)
            for (int panel = first_panel; panel < end; panel += kBlockPanels)
                multiply_block<decltype(as)>(product, panel, std::min(end, panel + kBlockPanels), row,
                                                             std::min(rows, row + block));
    });
}

#ifdef CORTEX_AMX
bool gates(const cortex_linear &gate_up, const cortex_linear &next) {
    return gate_up.format == CORTEX_BF16 && next.format == CORTEX_BF16;
}

void multiply_gated(const cortex_linear &gate_up, const void *prepared, int rows, int first_panel, int panels,
                    int activation, const cortex_linear &next, void *next_prepared) {
    with_activation(activation, [&](auto as) {
        const ToGated<decltype(as)> to{gate_up, static_cast<const std::byte *>(prepared),
                                       prepared_bytes(gate_up.format, gate_up.in_features),
                                       static_cast<std::byte *>(next_prepared),
                                       prepared_bytes(next.format, next.in_features)};
        multiply_by_tiles(to, first_panel, first_panel + panels, rows);
    });
}
#else
bool gates(const cortex_linear &, const cortex_linear &) { return false; }
void multiply_gated(const cortex_linear &, const void *, int, int, int, int, const cortex_linear &, void *) {}
#endif

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
            const auto *group = panel_of<typename decltype(as)::Group>(*linear, row / kLanes);
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
    const std::unique_ptr<Taken[]> taken(new Taken[pool->threads()]);
    run_product(*pool, taken.get(), *linear, rows, panels_of(*linear), [&](int row, int count, int panel, int panels) {
        multiply(*linear, prepared + row * stride, count, panel, panels,
                 y + static_cast<std::size_t>(row) * linear->out_features, linear->out_features, false);
    });
}

}  // extern "C"
