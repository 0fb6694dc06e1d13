// Where keys and values lie in a layer's pages.
#pragma once

#include <cstddef>

#include "abi.h"
#include "simd.h"

namespace cortex {

constexpr int kBlockTokens = CORTEX_BLOCK_TOKENS;
static_assert(kBlockTokens == kLanes, "a block's keys are the lanes of one vector of scores");

// A vector's lanes twice: in pages two numbers of a pair stand side by side.
constexpr int kPairedLanes = 2 * kLanes;

struct PageShape {
    int num_kv_heads, head_dim;

    explicit PageShape(const cortex_layer &layer) : num_kv_heads(layer.num_kv_heads), head_dim(layer.head_dim) {}

    // Elements of the keys of one head in one block; as many are the values, which follow them.
    std::size_t half_head() const { return static_cast<std::size_t>(kBlockTokens) * head_dim; }
    std::size_t block() const { return 2 * half_head() * num_kv_heads; }
    std::size_t keys(int block_id, int kv_head) const { return block_id * block() + 2 * half_head() * kv_head; }

    // Within the keys or values of one head in one block.
    static std::size_t key(int token, int dim) {
        return static_cast<std::size_t>(dim / 2) * kPairedLanes + 2 * token + dim % 2;
    }
    std::size_t value(int token, int dim) const {
        return static_cast<std::size_t>(token / 2) * 2 * head_dim + 2 * dim + token % 2;
    }
};

}  // namespace cortex
