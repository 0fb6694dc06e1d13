#include "attention.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention_amx.h"
#include "attention_bf16.h"
#include "attention_int8.h"
#include "attention_lanes.h"
#include "attention_pages.h"
#include "attention_tile.h"
#include "carver.h"
#include "rounding.h"
#include "simd.h"
#include "teams.h"

namespace cortex {
namespace {

#ifdef CORTEX_AMX
using Bf16Products = AmxProducts;
#else
using Bf16Products = LaneProducts<Bf16Kv>;
#endif
using Int8Products = LaneProducts<Int8Kv>;

// A tile that is more than a thread's share of the work by this is shared out span by span.
constexpr int kTilesPerThread = 4;
// Rows of span records that a round of shared tiles has room for, in tiles for each thread.
constexpr int kSharedTilesPerThread = 8;
// What a tile costs besides its rows, in rows: reading K/V.
constexpr int kReadingRows = 6;

struct Span {
    std::int32_t tile, index;
    std::int32_t record;  // of its first row
};

// The spans [first, end) of a round that belong to one tile.
struct Run {
    std::int32_t tile, first, end;
};

// Rows of a layer's K/V heads are cut into at most so many tiles.
std::size_t max_tiles(const cortex_layer &layer, int tile_rows, int tokens, int sequences) {
    const std::size_t rows = static_cast<std::size_t>(tokens) * (layer.num_heads / layer.num_kv_heads);
    return layer.num_kv_heads * (rows / tile_rows + sequences);
}

// Where attention keeps what lies between its phases.
struct Scratch {
    std::byte *workspaces;  // one for each worker
    float *spans;           // [kSharedTilesPerThread * threads * tile_rows] records of the round's spans
    float *so_far;          // [kTilesPerThread * threads, tile_rows] records of shared tiles
    Span *round;            // as many as there are records in `spans`
    Run *runs;              // [kTilesPerThread * threads]
    std::int32_t *order;    // [spans' records + tiles] items of a round, team by team
    Tile *tiles;            // [tiles]
    std::size_t bytes;

    Scratch(int threads, int head_dim, int tile_rows, std::size_t workspace_bytes, std::size_t tiles_room,
            void *scratch) {
        const std::size_t shared = static_cast<std::size_t>(kTilesPerThread) * threads;
        const std::size_t records = static_cast<std::size_t>(kSharedTilesPerThread) * threads * tile_rows;
        Carver memory(scratch);
        workspaces = memory.take<std::byte>(threads * workspace_bytes);
        spans = memory.take<float>(records * Record::floats(head_dim));
        so_far = memory.take<float>(shared * tile_rows * Record::floats(head_dim));
        round = memory.take<Span>(records);
        runs = memory.take<Run>(shared);
        order = memory.take<std::int32_t>(records + tiles_room);
        tiles = memory.take<Tile>(tiles_room);
        bytes = memory.used();
    }
};

template <class Products>
class Attention {
  public:
    Attention(cortex_pool &pool, const Request &request, AttentionPlan &plan, void *scratch)
        : pool_(pool),
          request_(request),
          plan_(plan),
          head_dim_(request.layer.head_dim),
          teams_(pool, request.batch.num_tokens),
          at_(scratch_for(request.layer, pool.threads(), request.batch.num_tokens, request.batch.num_sequences,
                          scratch)) {}

    static Scratch scratch_for(const cortex_layer &layer, int threads, int tokens, int sequences, void *scratch) {
        return Scratch(threads, layer.head_dim, kRows, Workspace<Products>::bytes(layer.head_dim),
                       max_tiles(layer, kRows, tokens, sequences), scratch);
    }

    void compute() {
        if (is_planned())
            next_.tile = plan_.num_shared;
        else
            plan();
        run_round();
        while (next_.tile < plan_.num_shared) {
            plan_.layer = nullptr;  // the first round is no more
            plan_round(0);
            run_round();
        }
    }

  private:
    static constexpr int kRows = Products::kRows;

    TileView<Products> view(int tile) const { return TileView<Products>(request_, at_.tiles[tile]); }
    Workspace<Products> workspace(int worker) const {
        return Workspace<Products>(at_.workspaces + worker * Workspace<Products>::bytes(head_dim_), head_dim_);
    }
    float *record(float *records, std::size_t row) const { return records + row * Record::floats(head_dim_); }
    float *so_far(int tile) const { return record(at_.so_far, static_cast<std::size_t>(tile) * kRows); }

    bool is_planned() const {
        const cortex_layer *of = plan_.layer, &layer = request_.layer;
        return of && of->num_heads == layer.num_heads && of->num_kv_heads == layer.num_kv_heads &&
               of->head_dim == layer.head_dim && of->window == layer.window;
    }

    void plan() {
        plan_ = {};
        plan_.layer = &request_.layer;
        cut_into_tiles();
        choose_shared();
        plan_round(plan_.num_tiles - plan_.num_shared);
    }

    // From the end: prompts come last in a batch and the last rows see most, and what takes long is begun early.
    void cut_into_tiles() {
        for (int sequence = request_.batch.num_sequences; sequence-- > 0;) {
            const int rows = request_.num_queries(sequence) * request_.group();
            for (int kv_head = 0; kv_head < request_.layer.num_kv_heads; ++kv_head)
                for (int tile = ceil_div(rows, kRows); tile-- > 0;)
                    at_.tiles[plan_.num_tiles++] = {sequence, kv_head, tile * kRows,
                                                    std::min(kRows, rows - tile * kRows)};
        }
    }

    // Tiles that would hold up the others go to the front; there are fewer than kTilesPerThread for each thread.
    void choose_shared() {
        if (pool_.threads() == 1) return;
        std::int64_t total = 0, largest = 0;
        for (int i = 0; i < plan_.num_tiles; ++i) {
            const std::int64_t cost = num_spans(i) * cost_of_span(i);
            total += cost;
            largest = std::max(largest, cost);
        }
        const std::int64_t limit = total / (kTilesPerThread * pool_.threads());
        if (largest <= limit) return;
        for (int i = 0; i < plan_.num_tiles; ++i)
            if (num_spans(i) > 1 && num_spans(i) * cost_of_span(i) > limit)
                std::swap(at_.tiles[plan_.num_shared++], at_.tiles[i]);
    }

    int num_spans(int tile) const { return view(tile).last_span() - view(tile).first_span() + 1; }
    std::int64_t cost_of_span(int tile) const { return at_.tiles[tile].num_rows + kReadingRows; }

    // As many spans of shared tiles, from where the last round ended, as there is room for, and tiles that are computed
    // whole behind them. Of each team they stay in this order.
    void plan_round(int whole_tiles) {
        take_spans();
        const int items = plan_.num_spans + whole_tiles;
        std::fill_n(plan_.begins, teams_.count() + 1, 0);
        for (int item = 0; item < items; ++item) ++plan_.begins[team_of(tile_of(item)) + 1];
        for (int team = 0; team < teams_.count(); ++team) plan_.begins[team + 1] += plan_.begins[team];
        int next[Teams::kMost];
        std::copy_n(plan_.begins, teams_.count(), next);
        for (int item = 0; item < items; ++item) at_.order[next[team_of(tile_of(item))]++] = item;
    }

    void take_spans() {
        const int room = kSharedTilesPerThread * pool_.threads() * kRows;
        int used = 0;
        plan_.num_spans = plan_.num_runs = 0;
        for (; next_.tile < plan_.num_shared; next_ = {next_.tile + 1, 0}) {
            const TileView<Products> tile = view(next_.tile);
            const int first = plan_.num_spans;
            next_.span = std::max(next_.span, tile.first_span());
            for (; next_.span <= tile.last_span() && used + tile.num_rows() <= room; ++next_.span) {
                at_.round[plan_.num_spans++] = {next_.tile, next_.span, used};
                used += tile.num_rows();
            }
            if (plan_.num_spans > first) at_.runs[plan_.num_runs++] = {next_.tile, first, plan_.num_spans};
            if (next_.span <= tile.last_span()) return;
        }
    }

    void run_round() {
        teams_.run(
            pool_, [&](int team) { return plan_.begins[team + 1] - plan_.begins[team]; },
            [&](int team, int i, int worker) {
                const int item = at_.order[plan_.begins[team] + i];
                if (item >= plan_.num_spans) return view(tile_of(item)).compute(workspace(worker));
                const Span &span = at_.round[item];
                view(span.tile).compute_span(span.index, workspace(worker), record(at_.spans, span.record));
            });
        if (plan_.num_runs) merge_round();
    }

    int tile_of(int item) const {
        return item < plan_.num_spans ? at_.round[item].tile : plan_.num_shared + item - plan_.num_spans;
    }

    // The team that has the first of a tile's tokens.
    int team_of(int tile) const {
        const Tile &of = at_.tiles[tile];
        return teams_.team_of(request_.batch.cu_seqlens_q[of.sequence] + of.first_row / request_.group());
    }

    void merge_round() {
        pool_.run(plan_.num_runs, [&](int item, int) {
            const Run &run = at_.runs[item];
            const TileView<Products> tile = view(run.tile);
            for (int i = run.first; i < run.end; ++i)
                tile.merge_span(at_.round[i].index, record(at_.spans, at_.round[i].record), so_far(run.tile));
            if (at_.round[run.end - 1].index == tile.last_span()) tile.finish_rows(so_far(run.tile));
        });
    }

    cortex_pool &pool_;
    const Request request_;
    AttentionPlan &plan_;
    const int head_dim_;
    const Teams teams_;
    const Scratch at_;
    struct {
        int tile, span;
    } next_{};  // of shared tiles, to be taken in a round
};

template <class Kv>
void write_in_format(const cortex_layer &layer, void *pages, int slot, const float *keys, const float *values) {
    using Number = typename Kv::Number;
    const PageShape<Number> shape(layer);
    const int block_id = slot / kBlockTokens, token = slot % kBlockTokens;
    std::byte *bytes = static_cast<std::byte *>(pages);
    if (token == 0) std::fill_n(bytes + block_id * shape.block_bytes(), shape.block_bytes(), std::byte{0});
    for (int head = 0; head < shape.num_kv_heads; ++head) {
        Number *at = reinterpret_cast<Number *>(bytes + shape.keys_at(block_id, head));
        Kv::write(at, at + shape.keys(), shape, token, keys, values);
        keys += shape.head_dim;
        values += shape.head_dim;
    }
}

}  // namespace

void write_kv(const cortex_layer &layer, int kv_format, void *pages, int slot, const float *keys,
              const float *values) {
    if (kv_format == CORTEX_INT8) return write_in_format<Int8Kv>(layer, pages, slot, keys, values);
    write_in_format<Bf16Kv>(layer, pages, slot, keys, values);
}

std::size_t attention_scratch_bytes(const cortex_model &model, int threads, int max_tokens, int max_sequences) {
    std::size_t most = 0;
    for (int i = 0; i < model.num_layers; ++i) {
        auto bytes = [&](auto scratch_for) {
            return scratch_for(model.layers[i], threads, max_tokens, max_sequences, nullptr).bytes;
        };
        most = std::max(most, bytes(Attention<Bf16Products>::scratch_for));
        most = std::max(most, bytes(Attention<Int8Products>::scratch_for));
    }
    return most;
}

void attend(cortex_pool &pool, const cortex_layer &layer, const cortex_batch &batch, const void *pages,
            const float *query, std::size_t query_stride, float *out, AttentionPlan &plan, void *scratch) {
    const Request request{layer, batch, static_cast<const std::byte *>(pages), query, query_stride, out};
    if (batch.kv_format == CORTEX_INT8) return Attention<Int8Products>(pool, request, plan, scratch).compute();
    Attention<Bf16Products>(pool, request, plan, scratch).compute();
}

}  // namespace cortex

extern "C" size_t cortex_kv_bytes(const cortex_layer *layer, int32_t kv_format, int32_t num_blocks) {
    using cortex::PageShape;
    const size_t block_bytes = kv_format == CORTEX_INT8 ? PageShape<cortex::Int8Kv::Number>(*layer).block_bytes()
                                                        : PageShape<cortex::Bf16Kv::Number>(*layer).block_bytes();
    return block_bytes * static_cast<size_t>(num_blocks);
}
