// Paged attention over bfloat16 or int8 keys and values, and the pages themselves.
//
// One block of one K/V head holds 16 tokens: keys as [head_dim / 2][16 tokens][2], values as
// [16 / 2 tokens][head_dim][2], so that a vector of 16 lanes is 16 keys, or 16 dimensions of a pair of values. A
// layer's pages are [num_blocks][num_kv_heads] of these; attention_pages.h has more.
//
// A query's keys are taken in spans of kSpanTokens, counted from position 0 of its sequence, and spans are put together
// in ascending order with an online softmax. What a query sees nothing of is left out, or has weight 0. So the bits of
// a query's result depend on its own keys alone, not on who else is in the batch, how its prompt was cut, or how many
// threads share the work. A sequence may be given as several, one behind another with the same table: runs that see
// each other both ways, and what stands between them.
#pragma once

#include <cstddef>

#include "abi.h"
#include "pool.h"
#include "teams.h"

namespace cortex {

constexpr int kSpanTokens = 512;

// How a step's attention is cut. Layers of one kind have it in common, so the one before is kept; to a step it belongs
// together with the scratch, where the rest of it lies.
struct AttentionPlan {
    const cortex_layer *layer = nullptr;  // that it was made for; null where there is none that others can have
    int num_tiles = 0, num_shared = 0;    // tiles that are shared out span by span are the first ones
    int num_spans = 0, num_runs = 0;      // of the first round
    int begins[Teams::kMost + 1] = {};    // of each team's items in it
};

// Put one token's rotated keys and its values, float [num_kv_heads, head_dim] each, into slot `slot`. The first
// slot of a block clears the block: what a query does not see has to be finite.
void write_kv(const cortex_layer &layer, int kv_format, void *pages, int slot, const float *keys,
              const float *values);

// Bytes of scratch for `attend`, whatever the format.
std::size_t attention_scratch_bytes(const cortex_model &model, int threads, int max_tokens, int max_sequences);

// out [T, num_heads * head_dim] from query [T, num_heads * head_dim], whose rows are `query_stride` floats apart;
// K/V of the step are in the pages already. Scores are scale * q . k, then softcap * tanh(scores / softcap)
// where there is one; a sink is one more logit per head, without a value. `plan` and `scratch` are those of the step's
// layers before.
void attend(cortex_pool &pool, const cortex_layer &layer, const cortex_batch &batch, const void *pages,
            const float *query, std::size_t query_stride, float *out, AttentionPlan &plan, void *scratch);

}  // namespace cortex
