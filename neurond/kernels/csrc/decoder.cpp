// One engine step: a flat batch of tokens through a whole decoder.
//
// The step is a chain of phases, each over independent items. Between two products stands one phase over rows, which
// does everything a row needs from the end of one product to the beginning of the next. Activations are float32;
// products round or quantise what they are given (linear.h).
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>

#include "abi.h"
#include "attention.h"
#include "linear.h"
#include "ops.h"
#include "pool.h"
#include "product_share.h"
#include "rounding.h"
#include "shares.h"
#include "simd.h"
#include "teams.h"

namespace cortex {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr int kRowsPerPiece = 4;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The widest of what the layers need, in floats or bytes for one row.
struct Widths {
    int wide = 0;             // output of qkv, or of gate and up
    int heads = 0;            // output of attention
    std::size_t prepared = 0;  // input of any product, as linear.h prepares it

    explicit Widths(const cortex_model &model) {
        auto input_of = [&](const cortex_linear &w) {
            prepared = std::max(prepared, prepared_bytes(w.format, w.in_features));
        };
        for (int i = 0; i < model.num_layers; ++i) {
            const cortex_layer &layer = model.layers[i];
            wide = std::max({wide, layer.qkv.out_features, layer.gate_up.out_features});
            heads = std::max(heads, layer.num_heads * layer.head_dim);
            input_of(layer.qkv);
            input_of(layer.o);
            input_of(layer.gate_up);
            input_of(layer.down);
        }
        input_of(model.head);
    }
};

// Where a step keeps what lies between its phases.
struct Buffers {
    float *residual;           // [T, hidden]
    float *branch;             // [T, hidden] what a norm has to see before it is added to the residual
    float *wide;               // [T, Widths::wide]
    float *attended;           // [T, Widths::heads]
    std::uint8_t *prepared;    // [max(T, S), Widths::prepared]
    std::int32_t *run_starts;  // [T + 1]
    Taken *taken;              // [threads]
    void *attention;
    std::size_t bytes;

    Buffers(const cortex_model &model, const Widths &widths, int threads, int tokens, int sequences, int samples,
            void *scratch) {
        std::size_t used = 0;
        auto take = [&](std::size_t size) {
            // As a number, because only the sizes are wanted where there is no scratch.
            const auto at = reinterpret_cast<std::uintptr_t>(scratch) + used;
            used += aligned(size);
            return reinterpret_cast<std::uint8_t *>(at);
        };
        auto floats = [&](int width) {
            return reinterpret_cast<float *>(take(sizeof(float) * tokens * static_cast<std::size_t>(width)));
        };
        residual = floats(model.hidden);
        branch = floats(model.hidden);
        wide = floats(widths.wide);
        attended = floats(widths.heads);
        prepared = take(static_cast<std::size_t>(std::max(tokens, samples)) * widths.prepared);
        run_starts = reinterpret_cast<std::int32_t *>(take(sizeof(std::int32_t) * (tokens + 1)));
        taken = reinterpret_cast<Taken *>(take(sizeof(Taken) * threads));
        attention = take(attention_scratch_bytes(model, threads, tokens, sequences));
        bytes = used;
    }
};

// Whether the model has a row of its embedding and of every rotary table for each token.
bool has_rows(const cortex_model &model, const cortex_batch &batch) {
    int num_positions = INT_MAX;
    for (int i = 0; i < model.num_ropes; ++i) num_positions = std::min(num_positions, model.ropes[i].num_positions);
    for (int t = 0; t < batch.num_tokens; ++t) {
        const int token = batch.token_ids[t], position = batch.positions[t];
        if (token < 0 || token >= model.vocab_size || position < 0 || position >= num_positions) return false;
    }
    return true;
}

class Step {
  public:
    Step(cortex_pool &pool, const cortex_model &model, const cortex_batch &batch, void *const *kv, void *scratch)
        : pool_(pool),
          model_(model),
          batch_(batch),
          kv_(kv),
          widths_(model),
          at_(model, widths_, pool.threads(), batch.num_tokens, batch.num_sequences, batch.num_samples, scratch) {}

    void compute() {
        find_runs();
        each_row(batch_.num_tokens, [&](int t) {
            embed(model_.embedding, batch_.token_ids[t], model_.hidden, model_.embedding_scale, residual(t));
        });
        const auto hidden = static_cast<std::size_t>(model_.hidden);
        for (int e = 0; e < batch_.num_embeds; ++e)
            std::copy_n(batch_.embeds + e * hidden, hidden, residual(batch_.embed_rows[e]));
        const float *unadded_norm = nullptr;  // of a branch that still has to be added
        for (int i = 0; i < model_.num_layers; ++i) {
            const cortex_layer &layer = model_.layers[i];
            enter(layer.input_norm, layer.qkv, unadded_norm);
            attention(layer, kv_[i]);
            enter(layer.pre_ffn_norm, layer.gate_up, layer.post_attention_norm);
            feed_forward(layer);
            unadded_norm = layer.post_ffn_norm;
        }
        logits(unadded_norm);
    }

  private:
    float *residual(int t) const { return at_.residual + static_cast<std::size_t>(t) * model_.hidden; }
    float *branch(int t) const { return at_.branch + static_cast<std::size_t>(t) * model_.hidden; }
    float *wide(int t) const { return at_.wide + static_cast<std::size_t>(t) * widths_.wide; }

    // Call f(t) for each row.
    template <class F>
    void each_row(int rows, F &&f) {
        const int each = std::min(kRowsPerPiece, std::max(1, ceil_div(rows, pool_.threads() * kPiecesPerThread)));
        const Teams teams(pool_, rows);
        teams.run(
            pool_, [&](int team) { return ceil_div(teams.rows(team), each); },
            [&](int team, int item, int) {
                const int begin = teams.first_row(team) + item * each;
                const int end = std::min(teams.first_row(team + 1), begin + each);
                for (int t = begin; t < end; ++t) f(t);
            });
    }

    void prepare(const cortex_linear &w, int row, const float *x) {
        prepare_row(w.format, w.in_features, x, at_.prepared + row * prepared_bytes(w.format, w.in_features));
    }

    // y [rows, w.out_features] from prepared rows; with `add`, added to what y holds.
    void product(const cortex_linear &w, const std::uint8_t *prepared, int rows, float *y, std::size_t y_stride,
                 bool add) {
        const std::size_t row_bytes = prepared_bytes(w.format, w.in_features);
        run_product(pool_, at_.taken, w, rows, panels_of(w), [&](int row, int count, int panel, int panels) {
            multiply(w, prepared + row * row_bytes, count, panel, panels, y + row * y_stride, y_stride, add);
        });
    }

    // A product whose result is added to the residual, by way of `norm` where there is one: then it stays in the
    // branch until the next phase over rows.
    void product_to_residual(const cortex_linear &w, const std::uint8_t *prepared, const float *norm) {
        product(w, prepared, batch_.num_tokens, norm ? at_.branch : at_.residual, model_.hidden, norm == nullptr);
    }

    void add_branch(int t, const float *norm) {
        float *x = residual(t), *y = branch(t);
        rms_norm(y, norm, model_.hidden, model_.norm_eps, y);
        for (int i = 0; i < model_.hidden; ++i) x[i] += y[i];
    }

    // Make the residual ready for `next`: add the branch that waits for `unadded_norm`, and normalise.
    void enter(const float *norm, const cortex_linear &next, const float *unadded_norm) {
        each_row(batch_.num_tokens, [&](int t) {
            if (unadded_norm) add_branch(t, unadded_norm);
            rms_norm(residual(t), norm, model_.hidden, model_.norm_eps, branch(t));
            prepare(next, t, branch(t));
        });
    }

    void attention(const cortex_layer &layer, void *pages) {
        product(layer.qkv, at_.prepared, batch_.num_tokens, at_.wide, widths_.wide, false);
        keep_all(layer, pages);
        attend(pool_, layer, batch_, pages, at_.wide, widths_.wide, at_.attended, plan_, at_.attention);
        const std::size_t width = static_cast<std::size_t>(layer.num_heads) * layer.head_dim;
        each_row(batch_.num_tokens, [&](int t) { prepare(layer.o, t, at_.attended + t * width); });
        product_to_residual(layer.o, at_.prepared, layer.post_attention_norm);
    }

    void keep_all(const cortex_layer &layer, void *pages) {
        const Teams teams(pool_, batch_.num_tokens);
        // A run belongs to the team that has its first token.
        const auto first_run = [&](int team) {
            const std::int32_t *begin = at_.run_starts, *end = begin + num_runs_;
            return static_cast<int>(std::lower_bound(begin, end, teams.first_row(team)) - begin);
        };
        teams.run(
            pool_, [&](int team) { return first_run(team + 1) - first_run(team); },
            [&](int team, int item, int) {
                const int run = first_run(team) + item;
                for (int t = at_.run_starts[run]; t < at_.run_starts[run + 1]; ++t) position_and_keep(layer, pages, t);
            });
    }

    // Normalise and turn the heads of one token, and put its K/V into the pages.
    void position_and_keep(const cortex_layer &layer, void *pages, int t) {
        const int dim = layer.head_dim;
        float *q = wide(t), *k = q + layer.num_heads * dim, *v = k + layer.num_kv_heads * dim;
        heads_in_place(layer, layer.q_norm, t, q, layer.num_heads);
        heads_in_place(layer, layer.k_norm, t, k, layer.num_kv_heads);
        write_kv(layer, batch_.kv_format, pages, batch_.slots[t], k, v);
    }

    void heads_in_place(const cortex_layer &layer, const float *norm, int t, float *heads, int count) {
        for (int h = 0; h < count; ++h) {
            float *head = heads + h * layer.head_dim;
            if (norm) rms_norm(head, norm, layer.head_dim, model_.norm_eps, head);
            if (layer.rope >= 0) rotate(model_.ropes[layer.rope], batch_.positions[t], head);
        }
    }

    void feed_forward(const cortex_layer &layer) {
        if (gates(layer.gate_up, layer.down)) return feed_forward_at_once(layer);
        product(layer.gate_up, at_.prepared, batch_.num_tokens, at_.wide, widths_.wide, false);
        const int size = layer.down.in_features;
        each_row(batch_.num_tokens, [&](int t) {
            activate(layer.activation, wide(t), wide(t) + size, size, wide(t));
            prepare(layer.down, t, wide(t));
        });
        product_to_residual(layer.down, at_.prepared, layer.post_ffn_norm);
    }

    // As feed_forward; the rows of the second product are made by the first.
    void feed_forward_at_once(const cortex_layer &layer) {
        const std::size_t row_bytes = prepared_bytes(layer.gate_up.format, layer.gate_up.in_features);
        const std::size_t next_bytes = prepared_bytes(layer.down.format, layer.down.in_features);
        auto *next = reinterpret_cast<std::uint8_t *>(at_.wide);
        run_product(pool_, at_.taken, layer.gate_up, batch_.num_tokens, panels_of(layer.gate_up) / 2,
                    [&](int row, int count, int panel, int panels) {
                        multiply_gated(layer.gate_up, at_.prepared + row * row_bytes, count, panel, panels,
                                       layer.activation, layer.down, next + row * next_bytes);
                    });
        product_to_residual(layer.down, next, layer.post_ffn_norm);
    }

    void logits(const float *unadded_norm) {
        if (batch_.num_samples == 0) return;  // chunks of prompts alone
        const auto hidden = static_cast<std::size_t>(model_.hidden);
        each_row(batch_.num_samples, [&](int s) {
            const int t = batch_.sample_rows[s];
            if (unadded_norm) add_branch(t, unadded_norm);
            rms_norm(residual(t), model_.final_norm, model_.hidden, model_.norm_eps, branch(t));
            if (batch_.states) std::copy_n(branch(t), model_.hidden, batch_.states + s * hidden);
            if (batch_.logits) prepare(model_.head, s, branch(t));
        });
        if (batch_.logits == nullptr) return;
        product(model_.head, at_.prepared, batch_.num_samples, batch_.logits, model_.vocab_size, false);
        if (model_.final_softcap == 0.0f) return;
        each_row(batch_.num_samples, [&](int s) {
            softcap(model_.final_softcap, model_.vocab_size,
                    batch_.logits + static_cast<std::size_t>(s) * model_.vocab_size);
        });
    }

    // Cut the tokens into runs that share no block: the first slot of a block clears it, so a block's tokens are
    // written one after another by one thread. What is given as several sequences shares blocks.
    void find_runs() {
        num_runs_ = 0;
        for (int t = 0; t < batch_.num_tokens; ++t) {
            const int slot = batch_.slots[t];
            if (t == 0 || slot != batch_.slots[t - 1] + 1 || slot % CORTEX_BLOCK_TOKENS == 0)
                at_.run_starts[num_runs_++] = t;
        }
        at_.run_starts[num_runs_] = batch_.num_tokens;
    }

    cortex_pool &pool_;
    const cortex_model &model_;
    const cortex_batch &batch_;
    void *const *kv_;
    const Widths widths_;
    const Buffers at_;
    AttentionPlan plan_;
    int num_runs_ = 0;
};

}  // namespace
}  // namespace cortex

extern "C" {

size_t cortex_scratch_bytes(const cortex_model *model, const cortex_pool *pool, int32_t max_tokens,
                            int32_t max_sequences, int32_t max_samples) {
    const cortex::Widths widths(*model);
    return cortex::Buffers(*model, widths, pool->threads(), max_tokens, max_sequences, max_samples, nullptr).bytes;
}

int32_t cortex_step(cortex_pool *pool, const cortex_model *model, const cortex_batch *batch, void *const *kv,
                    void *scratch) {
    if (!cortex::has_rows(*model, *batch)) return EINVAL;
    cortex::Step(*pool, *model, *batch, kv, scratch).compute();
    return 0;
}

int32_t cortex_abi(void) { return CORTEX_ABI; }

const char *cortex_variant(void) {
#if defined(CORTEX_AMX)
    return "amx";
#elif defined(CORTEX_AVX512)
    return "avx512";
#elif defined(CORTEX_AVX2)
    return "avx2";
#else
    return "portable";
#endif
}
}
