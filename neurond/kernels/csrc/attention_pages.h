// Where keys and values lie in a layer's pages.
//
// A page holds one K/V head in one block: scales where the format has them, then keys, then values. Numbers stand in
// pairs, 16 pairs beside each other: of keys the 16 tokens' at one pair of dimensions, of values 16 dimensions' at two
// tokens.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi.h"
#include "simd.h"

namespace cortex {

constexpr int kBlockTokens = CORTEX_BLOCK_TOKENS;
static_assert(kBlockTokens == kLanes, "a block's keys are the lanes of one vector of scores");

// A vector's lanes twice: in pages two numbers of a pair stand side by side.
constexpr int kPairedLanes = 2 * kLanes;

// Dimensions of an int8 key that share a scale.
constexpr int kKeyGroup = 2 * kLanes;
inline int key_groups(int head_dim) { return (head_dim + kKeyGroup - 1) / kKeyGroup; }

// bfloat16 scales of one page: of the keys [groups][16 tokens], then of the values [16 tokens].
template <class Number>
inline std::size_t page_scales(int head_dim) {
    return static_cast<std::size_t>(kBlockTokens) * (key_groups(head_dim) + 1);
}
template <>
inline std::size_t page_scales<bf16>(int) {
    return 0;
}

template <class Number>
struct PageShape {
    int num_kv_heads, head_dim;

    explicit PageShape(const cortex_layer &layer) : num_kv_heads(layer.num_kv_heads), head_dim(layer.head_dim) {}

    // The keys of a page; as many are its values, which follow them.
    std::size_t keys() const { return static_cast<std::size_t>(kBlockTokens) * head_dim; }
    std::size_t scale_bytes() const { return sizeof(bf16) * page_scales<Number>(head_dim); }
    std::size_t page_bytes() const { return scale_bytes() + 2 * sizeof(Number) * keys(); }
    std::size_t block_bytes() const { return page_bytes() * num_kv_heads; }

    // A page's keys, which its scales stand in front of.
    std::size_t keys_at(int block_id, int kv_head) const {
        return block_id * block_bytes() + kv_head * page_bytes() + scale_bytes();
    }

    // Within keys or values.
    static std::size_t key(int token, int pair) { return static_cast<std::size_t>(pair) * kPairedLanes + 2 * token; }
    std::size_t value(int token, int dim) const {
        return static_cast<std::size_t>(token / 2) * 2 * head_dim + 2 * dim + token % 2;
    }
};

}  // namespace cortex
