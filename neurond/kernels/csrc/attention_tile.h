// One tile of rows against the spans of its sequence. A row is one head of one query; a tile's rows share a K/V head.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "abi.h"
#include "attention.h"
#include "attention_pages.h"
#include "attention_product.h"
#include "attention_softmax.h"

namespace cortex {

// Keys, or values, that rows take turns with are few enough to stay in the first cache: so many blocks of a head of
// 64. They are fetched as many blocks ahead of their use.
constexpr int kChunkBlocks = 4;
constexpr int kSpanBlocks = kSpanTokens / kBlockTokens;

struct Tile {
    std::int32_t sequence, kv_head, first_row, num_rows;  // rows of a K/V head: query by query, its group's heads
};

// What attention is asked for.
struct Request {
    const cortex_layer &layer;
    const cortex_batch &batch;
    const std::byte *pages;
    const float *query;
    std::size_t query_stride;
    float *out;

    int group() const { return layer.num_heads / layer.num_kv_heads; }
    int num_queries(int sequence) const { return batch.cu_seqlens_q[sequence + 1] - batch.cu_seqlens_q[sequence]; }
};

// A worker's own memory.
template <class Kv>
struct Workspace {
    Carver memory;
    float *scores;  // [kTileRows, kScoreStride]
    float *span;    // [kTileRows] records
    float *so_far;  // the same
    typename Kv::Work of_format;

    Workspace(void *at, int head_dim)
        : memory(at),
          scores(memory.take<float>(kTileRows * kScoreStride)),
          span(memory.take<float>(kTileRows * Record::floats(head_dim))),
          so_far(memory.take<float>(kTileRows * Record::floats(head_dim))),
          of_format(memory, head_dim) {}
    static std::size_t bytes(int head_dim) { return Workspace(nullptr, head_dim).memory.used(); }
};

template <class Kv>
class TileView {
    using Number = typename Kv::Number;

  public:
    TileView(const Request &request, const Tile &tile)
        : request_(request), tile_(tile), shape_(request.layer), group_(request.group()) {
        const cortex_batch &batch = request.batch;
        first_token_ = batch.cu_seqlens_q[tile.sequence];
        first_position_ = batch.seq_lens_k[tile.sequence] - request.num_queries(tile.sequence);
        blocks_ = batch.block_tables + static_cast<std::size_t>(tile.sequence) * batch.table_width;
    }

    int first_span() const { return seen(0).begin / kSpanTokens; }
    int last_span() const { return (seen(tile_.num_rows - 1).end - 1) / kSpanTokens; }
    int num_rows() const { return tile_.num_rows; }

    // Put all of the result together.
    void compute(const Workspace<Kv> &work) const {
        const int last = last_span();
        for (int span = first_span(); span <= last; ++span) {
            compute_span(span, work, work.span);
            merge_span(span, work.span, work.so_far);
        }
        finish_rows(work.so_far);
    }

    // Records of one span, for the rows that see some of it.
    void compute_span(int span, const Workspace<Kv> &work, float *records) const {
        const Rows rows = rows_that_see(span);
        const Seen keys = keys_of(span, rows);
        const int first_key = keys.begin / kBlockTokens * kBlockTokens;
        const int num_blocks = (keys.end - first_key + kBlockTokens - 1) / kBlockTokens;
        const Number *pages[2 * kSpanBlocks + kChunkBlocks];
        find_pages(first_key / kBlockTokens, num_blocks, pages);
        gather_query(rows, work.of_format);
        scores(rows.count(), pages, num_blocks, work);
        for (int row = rows.begin; row < rows.end; ++row) {
            float *weights = work.scores + (row - rows.begin) * kScoreStride;
            const Record into = record(records, row);
            weights_from_scores(weights, num_blocks * kBlockTokens, first_key, clipped(seen(row), span),
                                request_.layer.softcap, into);
            Kv::take_weights(work.of_format, row - rows.begin, weights, pages, num_blocks, into, shape_.head_dim);
        }
        weigh_values(rows, pages + num_blocks, num_blocks, work, records);
    }

    // Add a span's records to those of the spans before it.
    void merge_span(int span, float *records, float *so_far) const {
        const Rows rows = rows_that_see(span);
        for (int row = rows.begin; row < rows.end; ++row) {
            const Record from = record(records, row), into = record(so_far, row);
            if (seen(row).begin / kSpanTokens == span)
                std::copy_n(from.at, Record::floats(shape_.head_dim), into.at);
            else
                merge(into, from, shape_.head_dim);
        }
    }

    void finish_rows(float *so_far) const {
        const float *sinks = request_.layer.sinks;
        for (int row = 0; row < tile_.num_rows; ++row) {
            const int head = head_of(row);
            const float sink = sinks ? sinks[head] : -std::numeric_limits<float>::infinity();
            const std::size_t out_row = token_of(row) * request_.layer.num_heads + head;
            finish(record(so_far, row), sink, shape_.head_dim, request_.out + out_row * shape_.head_dim);
        }
    }

  private:
    struct Rows {
        int begin, end;
        int count() const { return end - begin; }
    };

    int query_of(int row) const { return (tile_.first_row + row) / group_; }
    int head_of(int row) const { return tile_.kv_head * group_ + (tile_.first_row + row) % group_; }
    std::size_t token_of(int row) const { return static_cast<std::size_t>(first_token_ + query_of(row)); }

    Record record(float *records, int row) const { return {records + row * Record::floats(shape_.head_dim)}; }

    Seen seen(int row) const {
        const int end = first_position_ + query_of(row) + 1, window = request_.layer.window;
        return {window > 0 ? std::max(0, end - window) : 0, end};
    }

    static Seen clipped(Seen seen, int span) {
        return {std::max(seen.begin, span * kSpanTokens), std::min(seen.end, (span + 1) * kSpanTokens)};
    }

    // Later rows see later keys: those that see some of a span stand together.
    Rows rows_that_see(int span) const {
        Rows rows{0, tile_.num_rows};
        while (seen(rows.begin).end <= span * kSpanTokens) ++rows.begin;
        while (seen(rows.end - 1).begin >= (span + 1) * kSpanTokens) --rows.end;
        return rows;
    }

    Seen keys_of(int span, Rows rows) const {
        return clipped({seen(rows.begin).begin, seen(rows.end - 1).end}, span);
    }

    // The span's keys, then its values, in the order in which they are used, then something that may be fetched.
    void find_pages(int first_block, int num_blocks, const Number **pages) const {
        const Number **values = pages + num_blocks;
        for (int i = 0; i < num_blocks; ++i) {
            const std::size_t at = shape_.keys_at(blocks_[first_block + i], tile_.kv_head);
            pages[i] = reinterpret_cast<const Number *>(request_.pages + at);
            values[i] = pages[i] + shape_.keys();
        }
        std::fill_n(values + num_blocks, kChunkBlocks, values[num_blocks - 1]);
    }

    void gather_query(Rows rows, const typename Kv::Work &work) const {
        for (int row = rows.begin; row < rows.end; ++row) {
            const float *from = request_.query + token_of(row) * request_.query_stride +
                                static_cast<std::size_t>(head_of(row)) * shape_.head_dim;
            Kv::take_query(work, row - rows.begin, from, shape_.head_dim, request_.layer.scale);
        }
    }

    int chunk_blocks(int rows) const {
        if (rows <= kMaxTileRows) return kChunkBlocks;  // nothing is used twice
        return std::clamp(kChunkBlocks * 64 / shape_.head_dim, 1, kChunkBlocks);
    }

    void scores(int rows, const Number *const *keys, int num_blocks, const Workspace<Kv> &work) const {
        const int most = chunk_blocks(rows);
        for (int chunk = 0; chunk < num_blocks; chunk += most)
            each_row_tile(rows, [&](int row, auto r) {
                constexpr int R = decltype(r)::value;
                const int blocks = std::min(most, num_blocks - chunk);
                each_vector_tile<Kv::vectors_for(R)>(blocks, [&](int i, auto s) {
                    const Number *const *at = keys + chunk + i;
                    Kv::template score<R, decltype(s)::value>(
                        work.of_format, row, shape_.head_dim, at, row == 0 ? at + most : at,
                        work.scores + row * kScoreStride + (chunk + i) * kBlockTokens);
                });
            });
    }

    void weigh_values(Rows rows, const Number *const *values, int num_blocks, const Workspace<Kv> &work,
                      float *records) const {
        const int head_dim = shape_.head_dim, most = chunk_blocks(rows.count());
        for (int chunk = 0; chunk < num_blocks; chunk += most)
            each_row_tile(rows.count(), [&](int row, auto r) {
                constexpr int R = decltype(r)::value;
                const int blocks = std::min(most, num_blocks - chunk);
                const Number *const *at = values + chunk;
                each_vector_tile<Kv::vectors_for(R)>(head_dim / kLanes, [&](int i, auto s) {
                    Kv::template weigh<R, decltype(s)::value>(
                        work.of_format, row, work.scores + row * kScoreStride, chunk, at, row == 0 ? at + most : at,
                        blocks, head_dim, i * kLanes, record(records, rows.begin + row));
                });
            });
        for (int row = rows.begin; row < rows.end; ++row)
            Kv::finish_values(work.of_format, row - rows.begin, record(records, row), head_dim);
    }

    const Request &request_;
    const Tile tile_;
    const PageShape<Number> shape_;
    const int group_;
    int first_token_, first_position_;
    const std::int32_t *blocks_;
};

}  // namespace cortex
